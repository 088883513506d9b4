package quota

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// fullLedger is one in which everything that a book can hold is there.
func fullLedger(t *testing.T) *ledger {
	var limits []Limit
	for _, window := range append(everyWindow(), Daily(zone(t, "Europe/Berlin")), Refill(10*time.Hour), Rolling(time.Hour)) {
		limits = append(limits, Limit{Max: 70, Window: window}, Limit{Unit: UnitTokens, Max: 1003, Window: window})
	}
	l := newLedger(t, limits...)
	l.record(Requests(1))
	l.pass(day)
	l.book.reset(l.at)
	special := func(id string, quotas ...string) {
		l.number++
		l.book.grant(&hold{
			key: holdKey{7, l.number}, id: id, name: "alias", quotas: quotas, amounts: *amounting(Requests(1), InputTokens(3), OutputTokens(4)),
			ttl: hour, expires: l.at + hour,
		}, l.at)
	}
	l.grant(second, Requests(1), Tokens(5))
	l.rules.onExpiry = ReleaseExpired
	l.pass(second)
	l.rules.onExpiry = ChargeExpired
	l.grant(second, Requests(1), Tokens(5), Amount{"a \"unit\"", 2})
	l.pass(second)
	l.grant(hour, Requests(5), Tokens(100))
	l.record(Requests(2), Tokens(30))
	special("mine")
	special("", "p", "q")
	l.book.holds.byID["mine"].joined, l.book.holds.byID["mine"].found = 2, true
	l.book.holds.byID["mine"].estimated = []Unit{UnitOutputTokens}
	special("settled")
	l.book.commit(&settlement{key: l.book.holds.byID["settled"].key, id: "settled", home: "q"}, l.at)
	l.book.use(amounting(Requests(40)), l.at)
	l.book.observe(Observation{RetryAfter: time.Hour}, "", Window{}, l.at, l.at)
	l.book.today.deny("requests per day", 1)
	require.NotEmpty(t, l.book.claim(77, l.at))
	l.book.use(amounting(Requests(20)), l.at)
	l.book.mark(77, 5, l.at)
	l.book.mark(math.MaxUint64, math.MaxUint64, l.at)
	l.pass(7 * second)
	return l
}

func TestABookSurvivesJSONByteForByte(t *testing.T) {
	l := fullLedger(t)
	for range 3 {
		before := l.text()
		var back Book
		require.NoError(t, json.Unmarshal([]byte(before), &back))
		again, err := json.Marshal(&back)
		require.NoError(t, err)
		requireSame(t, before, string(again))
		require.NoError(t, back.verify())
		for i := range l.book.accounts {
			a := &l.book.accounts[i]
			at := slices.IndexFunc(back.accounts, func(b account) bool { return a.text == b.text })
			require.Equal(t, []int64{a.reserved, a.held}, []int64{back.accounts[at].reserved, back.accounts[at].held}, a.text)
			require.True(t, slices.Equal(a.slices, back.accounts[at].slices), a.text)
		}
		l.pass(hour / 2)
	}
	fresh := importedBook(5, 3, noon+day)
	fresh.clock = 1
	text, err := json.Marshal(fresh)
	require.NoError(t, err)
	var back Book
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, fresh.imported(), back.imported())
}

func TestABookIsWrittenAsItsFormSays(t *testing.T) {
	l := fullLedger(t)
	l.book.details().imported = &imported{1, 2, 3}
	l.book.holds.byID["mine"].released = true
	l.book.holds.byID["mine"].asked = &amounts{}
	for _, name := range []string{"plain", `a "quoted" \ <b> & ü \u2028 name`, "", "\x7f\xff", `"`, `\`, "<", ">", "&", "\x1f", "\x7f", "ü"} {
		l.book.today.details().alerts = []string{l.book.today.alerts()[0], name}
		for _, b := range []*Book{{}, newLedger(t, Limit{Max: 1}).book, l.book} {
			want, err := json.Marshal(b.form())
			require.NoError(t, err)
			text, err := b.form().appendTo(nil, false)
			require.NoError(t, err)
			requireSame(t, string(want), string(text))
			for range 2 {
				text, err := b.MarshalJSON()
				require.NoError(t, err)
				requireSame(t, string(want), string(text))
			}
			lines, err := b.form().appendTo([]byte("before: "), true)
			require.NoError(t, err)
			var compact bytes.Buffer
			require.NoError(t, json.Compact(&compact, bytes.TrimPrefix(lines, []byte("before: "))))
			requireSame(t, string(want), compact.String())
		}
	}
	for _, damage := range []func(b *Book){
		func(b *Book) { b.accounts[0].window = Window{kind: kindEvery, length: -1} },
		func(b *Book) { b.outbox()[0].alert.At = time.Date(10001, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		b := fullLedger(t).book
		damage(b)
		_, err := b.form().appendTo(nil, true)
		require.Error(t, err)
	}
}

// derived are the fields that a book works out again when it has been read. All others must be saved.
var derived = map[string][]string{
	"Book":        {"name", "configured", "limited", "changed", "quiet", "flowing"},
	"account":     {"limitKey", "held", "rule", "alarm"}, // what is saved of the key is seen to by itself
	"limitKey":    {"location", "place"},
	"bookDetails": {"refused", "finishedText"},
	"slice":       {"reserved"},
	"hold":        {"slot", "late", "older", "newer"},
	"holds":       {"byID", "byKey", "expiry", "late", "lateByKey", "spare"}, // the lines are saved
	"settledIDs":  {"until", "head", "crowded"},
	"dayTotals":   {"saturated"},
	"amounts":     {},
	"unitTotal":   {"open"},
}

func TestEveryFieldOfABookIsSavedOrDerived(t *testing.T) {
	l := fullLedger(t)
	l.book.details().imported = &imported{1, 2, 3}
	b := l.book
	before := l.text()
	groups := [][]any{
		{b}, {b.more}, {b.holds}, {b.settled()}, {&b.today}, {b.imported()}, {&b.holds.tally}, pointers(b.outbox()), pointers(b.batches()),
		pointers(b.holds.settled.queue), {b.today.more}, pointers(b.today.more.other), pointers(b.today.more.deniedBy),
		append(pointers(b.today.rest[:]), &b.today.requests),
	}
	var accounts, keys, pieces, marks, holdings []any
	for i := range b.accounts {
		a := &b.accounts[i]
		accounts, keys = append(accounts, a), append(keys, a.limitKey)
		pieces = append(pieces, pointers(a.slices)...)
		marks = append(marks, pointers(a.marks)...)
	}
	for h := range b.holds.each {
		holdings = append(holdings, h)
	}
	for h := b.holds.ended.oldest; h != nil; h = h.newer {
		holdings = append(holdings, h)
	}
	for _, group := range append(groups, accounts, keys, pieces, marks, holdings) {
		kind := reflect.TypeOf(group[0]).Elem()
		for i := range kind.NumField() {
			name := kind.Field(i).Name
			if slices.Contains(derived[kind.Name()], name) {
				continue
			}
			saved := false
			for _, one := range group {
				field := reflect.ValueOf(one).Elem().Field(i)
				field = reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
				if field.IsZero() {
					continue
				}
				kept := reflect.New(field.Type()).Elem()
				kept.Set(field)
				field.SetZero()
				text, err := json.Marshal(b)
				saved = saved || err != nil || string(text) != before
				field.Set(kept)
			}
			require.True(t, saved, "%s.%s is not saved: save it, or list it as derived", kind.Name(), name)
		}
	}
	requireSame(t, before, l.text())
}

// pointers are those to the elements of a list.
func pointers[T any](list []T) (all []any) {
	for i := range list {
		all = append(all, &list[i])
	}
	return all
}

func TestAClonedBookSharesNothingThatChanges(t *testing.T) {
	l := fullLedger(t)
	text := l.text()
	copied := l.book.clone()
	copied.name = "q"
	c := &ledger{t: t, book: copied, rules: l.rules, now: l.now, at: l.at, number: 1000}
	requireSame(t, text, c.text())
	c.verify()
	change := func(l *ledger) {
		for h := range l.book.holds.each {
			h.amounts.known[atRequests], h.expires = 0, l.at+day
			for i := range h.amounts.other {
				h.amounts.other[i].N = 99
			}
		}
		for h := l.book.holds.ended.oldest; h != nil; h = h.newer {
			h.amounts.known[atRequests], h.charged = 99, 1
		}
		for i := range l.book.accounts {
			a := &l.book.accounts[i]
			a.used++
			for i := range a.slices {
				a.slices[i].used, a.slices[i].reserved = 99, 99
			}
			for i := range a.marks {
				a.marks[i].at = 1
			}
		}
		for _, list := range [][]any{
			pointers(l.book.outbox()), pointers(l.book.batches()), pointers(l.book.holds.settled.queue), pointers(l.book.today.more.other),
			pointers(l.book.today.more.deniedBy), pointers(l.book.today.more.alerts), pointers(l.book.today.rest[:]),
		} {
			for i := range list {
				reflect.ValueOf(list[i]).Elem().SetZero()
			}
		}
		clear(l.book.holds.settled.until)
		clear(l.book.holds.byKey)
		clear(l.book.holds.expiry)
		l.book.limits()[0].max = 0
	}
	change(l)
	requireSame(t, text, c.text())
	c.verify()
	require.Len(t, c.book.limits(), len(l.book.limits()))
	require.NotSame(t, &l.book.accounts[0], &c.book.accounts[0])
}

func TestBooksThatNobodyCanHaveWrittenAreRefused(t *testing.T) {
	l := newLedger(t, Limit{Max: 10}, Limit{Max: 10, Window: Rolling(time.Minute)}, Limit{Max: 10, Window: Refill(time.Minute)},
		Limit{Max: 10, Window: Session(time.Minute)}, Limit{Max: 10, Window: Every(time.Minute)}, Limit{Max: 10, Window: InFlight()},
		Limit{Max: 10, Window: Lifetime()})
	l.grant(second, Requests(1))
	l.pass(second)
	l.grant(hour, Requests(2))
	l.book.use(amounting(Requests(5)), l.at)
	l.book.holding().settled.add("old", l.at+hour)
	l.book.mark(5, 6, l.at)
	l.book.today.deny("requests per day", 1)
	good := l.text()
	for _, c := range []struct{ path, value string }{
		{"nonsense", `1`}, {"clock", `"yesterday"`}, {"clock", `"1969-12-31T00:00:00Z"`}, {"clock", `"2300-01-01T00:00:00Z"`},
		{"clock", `"1970-01-01T00:00:00Z"`}, {"clock", `"2026-01-26T11:00:00Z"`},
		{"accounts/requests per day/used", `-1`}, {"accounts/requests per day/used", `9223372036854775808`},
		{"today/used", `{"requests":null}`},
		{"accounts/requests per day/used", `1.5`}, {"accounts/requests per day/max", `-1`}, {"accounts/requests per day/armed", `-1`},
		{"accounts/requests per day/armed", `9223372036854775807`}, {"accounts/requests per day/unit", `"tokens"`},
		{"accounts/requests per day/unit", `""`}, {"accounts/requests per day/window", `"1m0s"`},
		{"accounts/requests per day/window", `""`}, {"accounts/requests per day/window", `"fortnight"`},
		{"accounts/requests per day/end", `null`}, {"accounts/requests per day/end", `"2026-01-25T00:00:00Z"`},
		{"accounts/requests per day/reserved", `1`}, {"accounts/requests per day/alerted", `{"-1":"2026-01-25T00:00:00Z"}`},
		{"accounts/requests per day/alerted", `{"0":"2026-01-25T00:00:00Z"}`}, {"accounts/requests per day/slices", `[{"start":"2026-01-26T12:00:00Z","used":6}]`},
		{"accounts/requests per 1m0s/start", `"2026-01-26T12:00:01Z"`}, {"accounts/requests per 1m0s/end", `"2026-01-26T12:00:30Z"`},
		{"accounts/requests per 1m0s/end", `null`},
		{"accounts/requests per session 1m0s/start", `null`}, {"accounts/requests per session 1m0s/end", `null`},
		{"accounts/requests per session 1m0s/start", `"2026-01-26T12:00:01.000000001Z"`},
		{"accounts/requests per refill 1m0s/reserved", `3`}, {"accounts/requests per refill 1m0s/part", `60000000000`},
		{"accounts/requests per refill 1m0s/part", `-1`}, {"accounts/requests per refill 1m0s/start", `"2026-01-26T12:00:02Z"`},
		{"accounts/requests per rolling 1m0s/used", `7`}, {"accounts/requests per rolling 1m0s/slices", `[]`},
		{"accounts/requests per rolling 1m0s/slices", `[{"start":"2026-01-26T12:00:00.5Z","used":6}]`},
		{"accounts/requests per rolling 1m0s/slices", `[{"start":"2026-01-26T12:01:00Z","used":6}]`},
		{"accounts/requests per rolling 1m0s/slices", `[{"start":"2026-01-26T12:00:00Z","used":7},{"start":"2026-01-26T12:00:00Z","used":-1}]`},
		{"accounts/requests per rolling 1m0s/slices", `[{"start":"2026-01-26T12:00:00Z","used":3},{"start":"2026-01-26T11:59:54Z","used":3}]`},
		// a hold that no slice counts
		{"accounts/requests per rolling 1m0s", `{"unit":"requests","window":"rolling 1m0s","max":10,"seen":"2026-01-26T12:00:00Z"}`},
		{"accounts/requests in flight/used", `1`}, {"accounts/requests per lifetime/end", `"2026-01-26T12:00:02Z"`},
		{"holds/0/key", `"x"`}, {"holds/0/amounts", `{}`}, {"holds/0/amounts", `{"requests":-1}`}, {"holds/0/amounts", `{"":1}`},
		{"holds/0/amounts", `{"requests":2,"input_tokens":9223372036854775807,"output_tokens":1}`},
		{"holds/0/expires", `null`}, {"holds/0/ttl", `"0s"`}, {"holds/0/ttl", `"-1s"`}, {"holds/0/ttl", `"2000000h"`}, {"holds/0/ttl", `"soon"`},
		{"holds/0/quotas", `["q"]`}, {"holds/0/quotas", `["q","q"]`}, {"holds/0/quotas", `["q","other"]`},
		{"holds/0/quotas", `["","q"]`}, {"holds/0/quotas", `["a\nb","q"]`}, {"expired/0/quotas", `["q","q"]`},
		{"holds/0/charged", `"2026-01-26T12:00:00Z"`}, {"holds/0/granted", `"2026-01-26T12:00:02Z"`},
		{"holds", `[]`}, {"expired/0/charged", `null`}, {"expired/0/key", `"7-2"`},
		{"settled/0/id", `""`}, {"today/start", `"2026-01-28T00:00:00Z"`}, {"today/start", `null`}, {"today/start", `"0001-01-01T00:00:00Z"`}, {"today/calls", `-1`}, {"today/denied", `-1`},
		{"today/denied", `9223372036854775807`}, {"today/expired", `-1`}, {"today/used", `{"requests":-1}`},
		{"today/denied_by", `{"requests per day":-1}`}, {"today/denied_by", `{"requests per day":9223372036854775807}`},
		{"finished", `[{"quota":"q","day":"0001-01-01T00:00:00Z"}]`}, {"finished", `[{"quota":"q","day":"2026-01-25T00:00:00Z","calls":-1}]`},
		{"finished", `[{"quota":"q","day":"2026-01-25T00:00:00Z","used":{"requests":-1}}]`},
		{"finished", `[{"quota":"q","day":"2026-01-25T00:00:00Z","denied_by":{"x":-1}}]`},
		{"alerts", `[{"alert":{"id":"","quota":"q","limit":{"max":1},"threshold":50,"used":1,"at":"2026-01-25T00:00:00Z"}}]`},
		{"alerts", `[{"alert":{"id":"x","quota":"q","limit":{"max":1},"threshold":50,"used":-1,"at":"2026-01-25T00:00:00Z"}}]`},
		{"alerts", `[{"alert":{"id":"x","quota":"q","limit":{"max":1},"threshold":0,"used":1,"at":"2026-01-25T00:00:00Z"}}]`},
		{"imported", `{"used":-1,"reserved":0}`}, {"imported", `{"used":1,"reserved":1}`}, // beside holds
		{"alerts", `[{"alert":{"id":"x","quota":"q","limit":{"max":1},"threshold":1,"used":1,"at":"2026-01-25T00:00:00Z"},"more":1}]`},
		{"imported", `{"used":0,"reserved":0}`}, {"imported", `{"used":0,"reserved":-1}`},
		{"batches/0/writer", `"!"`}, {"batches/0/writer", `"0"`}, {"batches/0/number", `-1`}, {"batches", `{}`}, {"batches", `7`},
		{"holds/0/ttl", `null`}, {"today/denied", `2305843009213693951`},
		{"accounts/requests per rolling 1m0s/slices", `[{"start":"2026-01-26T11:59:58.8Z","used":7},{"start":"2026-01-26T12:00:00Z","used":-1}]`},
		{"accounts/requests per session 1m0s", `{"unit":"requests","window":"session 1m0s","max":10,"seen":"2026-01-26T12:00:00Z","used":6}`},
		{"accounts/requests per session 1m0s", `{"unit":"requests","window":"session 1m0s","max":10,"seen":"2026-01-26T12:00:00Z","end":"2026-01-26T12:01:00Z"}`},
		{"settled/0/until", `"0001-01-01T00:00:00Z"`}, {"settled/0/more", `1`}, {"holds/0/ttl", `"1"`}, {"holds/0/asked", `[]`},
		{"holds/0/joined", `-1`}, {"today/end", `"2026-01-26T00:00:00Z"`}, {"expired/0/ttl", `"-1s"`},
		{"accounts/requests per refill 1m0s/reserved", `-1`}, {"accounts/requests per day/start", `"2026-01-27T00:00:00Z"`},
		{"accounts/requests per rolling 1m0s/slices", `[{"start":"2026-01-26T12:00:00Z","used":6},{"start":"2026-01-26T12:00:00Z","used":0}]`},
		{"accounts/requests per session 1m0s/end", `"2026-01-26T12:00:00Z"`},
		{"accounts/requests per lifetime/slices", `[{"start":"2026-01-26T12:00:00Z","used":5}]`},
		{"finished", `[{"quota":"q","day":"2026-01-25T00:00:00Z","denied":-1}]`}, {"finished", `[{"quota":"q","day":"2026-01-25T00:00:00Z","expired":-1}]`},
		{"tally/granted", `3`}, {"tally/granted", `-1`}, {"tally/settled", `9223372036854775807`},
	} {
		var form map[string]any
		require.NoError(t, json.Unmarshal([]byte(good), &form))
		bad := replaced(t, form, strings.Split(c.path, "/"), c.value)
		var b Book
		err := json.Unmarshal(bad, &b)
		require.Error(t, err, "%s: %s\n%s", c.path, c.value, bad)
		require.Equal(t, Book{}, b, "a book that has been refused is there in part")
	}
	for _, text := range []string{``, `null1`, `[]`, `1`, good + `{}`, good[:len(good)-1], `{"clock":"2026-01-26T12:00:00Z"}{}`} {
		require.Error(t, json.Unmarshal([]byte(text), &Book{}), text)
	}
	require.Error(t, (&Book{}).UnmarshalJSON([]byte(good+"{}")))
	require.NoError(t, (&Book{}).UnmarshalJSON([]byte(good+" \n")))
	for _, c := range []struct{ path, value string }{
		{"accounts/requests per day/alerted", `{"1":"2026-01-26T12:00:00Z"}`}, {"batches/0/writer", `"1"`}, {"today/denied", `2305843009213693950`},
		{"finished", `[{"quota":"q","day":"2026-01-25T00:00:00Z","used":{"requests":0},"denied_by":{"x":0}}]`},
		{"alerts", `[{"alert":{"id":"x","quota":"q","limit":{"max":1},"threshold":1,"used":0,"at":"2026-01-25T00:00:00Z"}}]`},
		{"holds/0/amounts", `{"requests":2,"input_tokens":9223372036854775806,"output_tokens":1}`}, {"holds/0/ttl", `"1ns"`},
	} {
		var form map[string]any
		require.NoError(t, json.Unmarshal([]byte(good), &form))
		require.NoError(t, json.Unmarshal(replaced(t, form, strings.Split(c.path, "/"), c.value), &Book{}), "%s: %s", c.path, c.value)
	}
	for _, number := range []string{`"used":6`, `"max":10`, `"calls":1`, `"requests":2`, `"clock":"2026-01-26T12:00:01Z"`} {
		key, _, _ := strings.Cut(number, ":")
		bad := strings.Replace(good, number, key+":null", 1)
		require.NotEqual(t, good, bad)
		require.ErrorContains(t, json.Unmarshal([]byte(bad), &Book{}), "null", number)
	}
	read := &Book{}
	day := `{"quota":"q","day":"2026-01-25T00:00:00Z","used":null,"alerts":null,"calls":5}`
	require.NoError(t, json.Unmarshal([]byte(good[:len(good)-1]+`,"finished":[`+day+`]}`), read))
	require.Equal(t, []int64{5}, calls(read.finished()))
}

// replaced returns a JSON object with the value at a path replaced; null removes it.
func replaced(t *testing.T, in any, path []string, value string) []byte {
	t.Helper()
	at := in
	for i, name := range path {
		if list, ok := at.([]any); ok {
			require.Equal(t, "0", name)
			at = list[0]
			continue
		}
		object := at.(map[string]any)
		if i == len(path)-1 {
			object[name] = json.RawMessage(value)
			if value == "null" {
				delete(object, name)
			}
			break
		}
		at = object[name]
		require.NotNil(t, at, name)
	}
	text, err := json.Marshal(in)
	require.NoError(t, err)
	return text
}

func TestBooksOfTheFarFutureCanBeReadAgain(t *testing.T) {
	t.Parallel()
	var limits []Limit
	for _, window := range append(everyWindow(), Session(longestWindow), Every(longestWindow)) {
		limits = append(limits, Limit{Max: 10, Window: window})
	}
	l := newLedger(t, limits...)
	l.to(latest)
	l.grant(int64(longestWindow), Requests(1))
	before := l.text()
	l.reload()
	l.book.name = "q"
	requireSame(t, before, l.text())
	l.pass(hour)
	l.reload()
}

func FuzzBookJSON(f *testing.F) {
	t := &testing.T{}
	f.Add([]byte(fullLedger(t).text()), hour)
	f.Add([]byte(newLedger(t).text()), int64(0))
	f.Add([]byte(`{"clock":"2026-01-26T12:00:00Z","imported":{"used":5,"reserved":3,"ends":"2026-01-27T00:00:00Z"}}`), -2*day)
	f.Add([]byte(`{"clock":"0001-01-01T00:00:00Z"}`), 400*day)
	var limits []Limit
	for _, window := range everyWindow() {
		limits = append(limits, Limit{Max: 70, Window: window}, Limit{Unit: UnitTokens, Max: 1003, Window: window})
	}
	f.Fuzz(func(t *testing.T, data []byte, after int64) {
		exercise(t, data, after, rulesOfLimits(limits...))
	})
}

// exercise reads a book and does everything with it that can be done, unless it is refused.
func exercise(t *testing.T, data []byte, after int64, r *rules) (accepted bool) {
	l := &ledger{t: t, book: &Book{}, rules: r, number: 1 << 40}
	if json.Unmarshal(data, l.book) != nil {
		return false
	}
	l.book.name = "q"
	l.verify()
	text := l.text()
	var back Book
	require.NoError(t, json.Unmarshal([]byte(text), &back), text)
	again, err := json.Marshal(&back)
	require.NoError(t, err)
	requireSame(t, text, string(again))

	l.to(min(max(noon+after%(200*365*day), earliest), latest))
	list := []Amount{Requests(1), Tokens(100)}
	if !l.book.today.countable(amounting(Requests(3), Tokens(300))) {
		return true
	}
	keys := []holdKey{l.grant(hour, list...), l.grant(hour, list...), l.grant(hour, list...)}
	l.commit(keys[0], Tokens(150))
	l.release(keys[1])
	l.record(Requests(1), InputTokens(50), OutputTokens(math.MaxInt64/2))
	l.book.releaseOldest(amounting(Requests(5), Tokens(7)), l.at, l.at)
	for _, h := range l.book.holds.inOrder() {
		if len(h.amounts.list())%2 == 0 {
			l.commit(h.key, Requests(7))
		}
	}
	for h := l.book.holds.ended.oldest; h != nil; h = l.book.holds.ended.oldest {
		l.release(h.key)
		l.book.judge(amounting(list...), l.at)
	}
	l.book.reset(l.at)
	l.book.status(l.at)
	l.to(min(l.now+3*hour, latest))
	l.book.clone()
	l.reload()
	l.book.status(l.at)
	_, _, _ = l.book.blank(), l.book.untouched(), l.book.nextTurn()
	return true
}

func TestBooksWithAHarmAreRefusedOrSound(t *testing.T) {
	rng := random(t)
	l := fullLedger(t)
	var form any
	decoder := json.NewDecoder(strings.NewReader(l.text()))
	decoder.UseNumber()
	require.NoError(t, decoder.Decode(&form))
	var spots []func(any) (undo func()) // one for each number and each text in it
	var visit func(in any)
	visit = func(in any) {
		switch in := in.(type) {
		case map[string]any:
			for key, value := range in {
				visit(value)
				spots = append(spots, func(harm any) func() {
					in[key] = harm
					return func() { in[key] = value }
				})
			}
		case []any:
			for i, value := range in {
				visit(value)
				spots = append(spots, func(harm any) func() {
					in[i] = harm
					return func() { in[i] = value }
				})
			}
		}
	}
	visit(form)
	harms := []any{
		0, 1, 7, 1 << 40, math.MaxInt64 / 5, math.MaxInt64 - 1, math.MaxInt64, "", "x", "7-1", "7-3", map[string]any{}, []any{}, nil, true,
		map[string]any{"requests": math.MaxInt64}, map[string]any{"tokens": 5, "input_tokens": 3, "output_tokens": math.MaxInt64},
		"0001-01-01T00:00:00Z", "1970-01-01T00:00:00.000000001Z", "2026-01-26T12:00:00Z", "2026-01-27T12:00:02Z", "2026-01-27T00:00:00Z",
		"2149-12-31T00:00:00Z", "2262-04-11T23:47:16.854775807Z", "1ns", "876000h",
	}
	accepted := 0
	for range Rounds(1000) {
		undo := spots[rng.IntN(len(spots))](harms[rng.IntN(len(harms))])
		twice := func() {}
		if rng.IntN(2) == 0 {
			twice = spots[rng.IntN(len(spots))](harms[rng.IntN(len(harms))])
		}
		text, err := json.Marshal(form)
		require.NoError(t, err)
		if exercise(t, text, rng.Int64N(3*day)-day, l.rules) {
			accepted++
		}
		if t.Failed() {
			t.FailNow()
		}
		twice()
		undo()
	}
	require.Greater(t, accepted, 20)
}

func TestACloneIsWhatReadingTheJSONAgainGives(t *testing.T) {
	l := fullLedger(t)
	l.book.today.saturated, l.book.more.refused = true, &lastRefusal{}
	cloned := &ledger{t: t, book: l.book.Clone(), rules: l.rules, now: l.now, at: l.at, number: 1000}
	loaded := &ledger{t: t, book: l.book.clone(), rules: l.rules, now: l.now, at: l.at, number: 1000}
	loaded.reload()
	require.Nil(t, cloned.book.configured, "nobody has opened it yet")
	require.Empty(t, cloned.book.limits())
	require.True(t, cloned.book.changed)
	require.False(t, cloned.book.today.saturated)
	require.Nil(t, cloned.book.refused())
	require.Nil(t, cloned.book.accounts[0].rule)
	requireSame(t, l.text(), cloned.text())
	cloned.book.name, loaded.book.name = "q", "q"
	for range 3 {
		cloned.pass(day)
		loaded.pass(day)
		requireSame(t, loaded.text(), cloned.text())
		cloned.book = cloned.book.Clone()
		cloned.book.name = "q"
	}
	cloned.verify()
}

func TestFinishedDaysAreEncodedAgainWhenThereIsAnother(t *testing.T) {
	l := fullLedger(t)
	days := len(l.book.finished())
	for range 3 {
		text, err := l.book.MarshalJSON()
		require.NoError(t, err)
		requireSame(t, l.text(), string(text))
		want, err := json.Marshal(l.book.form())
		require.NoError(t, err)
		requireSame(t, string(want), string(text))
		l.record(Requests(1))
		l.pass(day)
		l.book = l.book.Clone()
		l.book.name = "q"
		l.to(l.now)
	}
	require.Equal(t, days+3, len(l.book.finished()))
	require.NotContains(t, l.text(), `"denied":17`)
	l.book.refuse(l.rules, refusal{by: "requests per day", n: 17, day: nanos(l.book.finished()[0].Day)}, l.at)
	require.Contains(t, l.text(), `"denied":17`, "a refusal that was saved late")
	l.book.more.finished = slices.Repeat(l.book.finished(), 100)
	require.Greater(t, len(l.text()), 10_000)
	l.book.takeFinished()
	text, err := l.book.MarshalJSON()
	require.NoError(t, err)
	require.NotContains(t, string(text), "finished")
}
