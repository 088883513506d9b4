package quota

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// randomHolds are some as books have them, with all that a hold can have.
func randomHolds(rng *rand.Rand) holdList {
	list := make(holdList, 1+rng.IntN(4))
	at := testNow().UnixNano() + rng.Int64N(int64(time.Hour))
	some := func() bool { return rng.IntN(3) == 0 }
	for i := range list {
		one := &list[i]
		at += []int64{0, 1, 1000, 1_500_000_000, int64(24 * time.Hour)}[rng.IntN(5)]
		one.Key = keyText{rng.Uint64() >> rng.IntN(64), rng.Uint64() >> rng.IntN(64)}
		one.Name = []string{"calls", "tokens of a team", "other"}[rng.IntN(3)]
		one.Granted, one.TTL = moment(at), span(time.Millisecond)+span(rng.Int64N(int64(1)<<(1+rng.IntN(50))))
		one.Expires = one.Granted + moment(one.TTL)
		one.Amounts = amountsOf(*amounting([]Amount{{[]Unit{"gpu_seconds", "images"}[rng.IntN(2)], rng.Int64N(9)}}...))
		for _, unit := range []Unit{UnitRequests, UnitUSD, "images", UnitInputTokens, UnitOutputTokens} {
			if some() {
				(*amounts)(&one.Amounts).set(unit.place(), unit, rng.Int64()>>rng.IntN(64)/4%1_000_000_000_000_000_000)
			}
		}
		if some() {
			one.ID = "job 17/3"
		}
		if some() {
			one.Quotas = []string{"calls", "tokens"}
		}
		if some() {
			asked := amountsOf(*amounting(Requests(3), Tokens(rng.Int64N(1000))))
			one.Asked = &asked
		}
		if some() {
			one.Estimated = []Unit{UnitTokens, "images"}[:1+rng.IntN(2)]
		}
		if some() {
			one.Charged = one.Expires
		}
		if some() {
			one.Joined = 1 + rng.Int64N(9)
		}
		one.Released, one.Found = some(), some()
	}
	return list
}

// written returns the holds as they stand in a book, compact or in lines.
func written(t testing.TB, list holdList, lines bool) []byte {
	t.Helper()
	w := bookWriter{indent: lines, depth: 2}
	w.open('[')
	for i := range list {
		w.next()
		w.hold(&list[i])
	}
	w.close(']')
	require.NoError(t, w.err)
	return w.out
}

// readSlowly reads holds as encoding/json does.
func readSlowly(data []byte) (list holdList, err error) {
	err = (*checked[holdJSON])(&list).UnmarshalJSON(data)
	return list, err
}

func TestHoldsAsTheyAreWrittenAreReadWithoutEncodingJSON(t *testing.T) {
	rng := random(t)
	for range Rounds(2000) {
		list := randomHolds(rng)
		for _, lines := range []bool{false, true} {
			data := written(t, list, lines)
			r := holdReader{data: data}
			quick := holdList(r.list())
			require.False(t, r.strange, "%s", data)
			slow, err := readSlowly(data)
			require.NoError(t, err, "%s", data)
			require.Equal(t, slow, quick, "%s", data)
			require.Equal(t, list, quick)
		}
	}
}

// sameAsSlowly fails where holds are not read as encoding/json reads them, which asks about sound JSON only.
func sameAsSlowly(t *testing.T, data []byte) {
	t.Helper()
	if !json.Valid(data) {
		return
	}
	var quick holdList
	quickErr := quick.UnmarshalJSON(data)
	slow, slowErr := readSlowly(data)
	require.Equal(t, slowErr, quickErr, "%s", data)
	if slowErr == nil {
		require.Equal(t, slow, quick, "%s", data)
	}
}

func TestHoldsAsOthersMayHaveWrittenThemAreReadAsEncodingJSONReadsThem(t *testing.T) {
	const hold = `{"key":"a-1","name":"calls","amounts":{"requests":1},"granted":"2026-01-05T12:00:00Z","expires":"2026-01-05T12:15:00Z","ttl":"15m0s"}`
	sameAsSlowly(t, []byte("["+hold+"]"))
	for _, change := range [][2]string{
		{`"key":"a-1"`, `"Key":"a-1"`}, {`"a-1"`, `"a-1@calls"`}, {`"a-1"`, `"a"`}, {`"a-1"`, `"a-!"`}, {`"a-1"`, `"-1"`}, {`"a-1"`, `"a-1-1"`},
		{`"a-1"`, `"zzzzzzzzzzzzzzzzz-1"`}, {`"a-1"`, `""`}, {`"a-1"`, `1`}, {`"a-1"`, `null`},
		{`"calls"`, `"c\u0061lls"`}, {`"calls"`, `"käse"`}, {`"calls"`, `""`}, {`"calls"`, "\"\xff\""}, {`"calls"`, "\"\x7f\""}, {`"name":"calls",`, ``},
		{`"name":"calls"`, `"name":"calls","name":"other"`}, {`"name":"calls"`, `"nome":"calls"`},
		{`{"requests":1}`, `{}`}, {`{"requests":1}`, `{"requests":-1}`}, {`{"requests":1}`, `{"requests":1.0}`}, {`{"requests":1}`, `{"requests":1e2}`},
		{`{"requests":1}`, `{"requests":0}`}, {`{"requests":1}`, `{"requests":1,"requests":2}`}, {`{"requests":1}`, `{"requests":9223372036854775807}`},
		{`{"requests":1}`, `{"requests":9223372036854775808}`}, {`{"requests":1}`, `{"requests":999999999999999999}`}, {`{"requests":1}`, `{"":1}`},
		{`{"requests":1}`, `{"a per b":1}`}, {`{"requests":1}`, `{"a per b":1,"c":2}`}, {`{"requests":1}`, `{"b":1,"a":2}`}, {`{"requests":1}`, `null`},
		{`{"requests":1}`, `{"requests":null}`}, {`{"requests":1}`, `{"input_tokens":9223372036854775807,"output_tokens":1}`},
		{`{"requests":1}`, `{"tokens":1,"input_tokens":7,"output_tokens":2}`}, {`{"requests":1}`, `{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9}`},
		{`"amounts":`, `"asked":{"tokens":5},"amounts":`}, {`"amounts":`, `"asked":null,"amounts":`}, {`"amounts":`, `"asked":{},"amounts":`},
		{`"2026-01-05T12:15:00Z"`, `"2026-01-05T13:15:00+01:00"`}, {`"2026-01-05T12:15:00Z"`, `"2026-01-05T12:15:00.5Z"`}, {`"2026-01-05T12:15:00Z"`, `"soon"`},
		{`"2026-01-05T12:15:00Z"`, `"1926-01-05T12:15:00Z"`}, {`"2026-01-05T12:15:00Z"`, `"0001-01-01T00:00:00Z"`}, {`"2026-01-05T12:15:00Z"`, `null`},
		{`"15m0s"`, `"15m"`}, {`"15m0s"`, `"5m0s","ttl":"5m0s"`}, {`"15m0s"`, `"0s"`}, {`"15m0s"`, `"-1s"`}, {`"15m0s"`, `""`}, {`"15m0s"`, `null`}, {`,"ttl":"15m0s"`, ``}, {`"15m0s"`, `"900000h"`},
		{`"ttl"`, `"joined":2,"ttl"`}, {`"ttl"`, `"joined":-2,"ttl"`}, {`"ttl"`, `"joined":0,"ttl"`}, {`"ttl"`, `"joined":9,"joined":2,"ttl"`}, {`"ttl"`, `"asked":{"tokens":5},"asked":{"images":1},"ttl"`}, {`"ttl"`, `"joined":"2","ttl"`},
		{`"ttl"`, `"released":true,"ttl"`}, {`"ttl"`, `"released":false,"ttl"`}, {`"ttl"`, `"released":null,"ttl"`}, {`"ttl"`, `"found":true,"found":true,"ttl"`},
		{`"ttl"`, `"quotas":["a","b"],"ttl"`}, {`"ttl"`, `"quotas":[],"ttl"`}, {`"ttl"`, `"quotas":["a"],"ttl"`}, {`"ttl"`, `"quotas":["b","a"],"ttl"`},
		{`"ttl"`, `"quotas":["a",null],"ttl"`}, {`"ttl"`, `"quotas":null,"ttl"`}, {`"ttl"`, `"estimated":["tokens"],"ttl"`}, {`"ttl"`, `"estimated":[],"ttl"`},
		{`"ttl"`, `"charged":"2026-01-05T12:15:00Z","ttl"`}, {`"ttl"`, `"id":"a","ttl"`}, {`"ttl"`, "\t\"id\" : \"a\" ,\n \"ttl\""}, {`"ttl"`, "\n \"id\" : \"a\" ,\n \"ttl\""},
	} {
		data := bytes.Replace([]byte("["+hold+"]"), []byte(change[0]), []byte(change[1]), 1)
		require.NotEqual(t, "["+hold+"]", string(data))
		sameAsSlowly(t, data)
		sameAsSlowly(t, bytes.Replace([]byte("["+hold+","+hold+"]"), []byte(hold), data[1:len(data)-1], 1))
		sameAsSlowly(t, []byte("["+hold+","+string(data[1:len(data)-1])+"]"))
	}
	for _, list := range []string{"[" + hold + "\t," + hold + "]", "[" + hold + "\r\n," + hold + "]", "[" + hold + "\t]", `[]`, `{}`, `"a"`, `1`, ` [ ` + hold + "\n] ", `[[]]`, `[null]`, `[{}]`} {
		sameAsSlowly(t, []byte(list))
	}
}

func TestAListOfHoldsThatStandsTwiceIsReadTwice(t *testing.T) {
	data := written(t, randomHolds(random(t)), false)
	var form, slow struct{ Holds holdList }
	twice := []byte(`{"holds":` + string(data) + `,"holds":` + string(data) + `}`)
	require.NoError(t, json.Unmarshal(twice, &form))
	for range 2 {
		require.NoError(t, (*checked[holdJSON])(&slow.Holds).UnmarshalJSON(data))
	}
	require.Equal(t, slow, form)
}

func FuzzReadHolds(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		f.Add(written(f, randomHolds(rng), rng.IntN(2) == 0))
	}
	f.Fuzz(sameAsSlowly)
}
