package quota

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// listed returns the keys of a line from the oldest, after checking that it reads the same from the newest.
func listed(t *testing.T, l *line) (keys []holdKey) {
	t.Helper()
	for h := l.oldest; h != nil; h = h.newer {
		keys = append(keys, h.key)
	}
	var back []holdKey
	for h := l.newest; h != nil; h = h.older {
		back = append(back, h.key)
	}
	slices.Reverse(back)
	require.Equal(t, keys, back)
	return keys
}

func TestHoldsStayFindableWhateverComesAndGoes(t *testing.T) {
	rng := random(t)
	var s holds
	var model []*hold // by age
	for number := uint64(1); number < uint64(Rounds(3000)); number++ {
		switch op := rng.IntN(10); {
		case op < 5:
			h := s.blank()
			require.Empty(t, h.amounts)
			*h = hold{key: holdKey{1, number}, granted: int64(number), expires: 1 + rng.Int64N(1000), amounts: h.amounts}
			if rng.IntN(2) == 0 {
				h.id = fmt.Sprint("id", number)
			} else if rng.IntN(2) == 0 {
				h.quotas = []string{"a", "b"}
			}
			s.add(h)
			model = append(model, h)
		case op < 8 && len(model) > 0:
			i := rng.IntN(len(model))
			s.remove(model[i])
			s.recycle(model[i])
			model = slices.Delete(model, i, i+1)
		case len(model) > 0:
			s.extend(model[rng.IntN(len(model))], 1+rng.Int64N(1000))
		}
		require.Equal(t, len(model), s.open())
		require.Len(t, s.expiry, len(model))
		var plain, other []holdKey
		soonest, ids := int64(0), 0
		for _, h := range model {
			require.Same(t, h, s.find(h.key))
			require.Same(t, h, s.expiry[h.slot-1].hold)
			require.Equal(t, h.expires, s.expiry[h.slot-1].expires)
			if h.id != "" {
				require.Same(t, h, s.byID[h.id])
				ids++
			}
			if h.plain() {
				plain = append(plain, h.key)
			} else {
				other = append(other, h.key)
			}
			if soonest == 0 || h.expires < soonest {
				soonest = h.expires
			}
		}
		require.Len(t, s.byID, ids)
		if number%50 == 0 {
			require.Equal(t, plain, listed(t, &s.plain))
			require.Equal(t, other, listed(t, &s.other))
			require.Equal(t, model, s.inOrder())
		}
		if soonest > 0 {
			require.Equal(t, soonest, s.nextExpiry())
		}
	}
	for last := int64(math.MinInt64); len(s.expiry) > 0; {
		h := s.expiry[0].hold
		require.GreaterOrEqual(t, h.expires, last)
		last = h.expires
		s.remove(h)
	}
	require.Zero(t, s.nextExpiry())
	require.Equal(t, line{}, s.plain)
	require.Equal(t, line{}, s.other)
}

func TestHoldsThatExpireTogetherDoSoInTheSameOrderInACopy(t *testing.T) {
	rng := random(t)
	l := newLedger(t, Limit{Max: 1000, Window: Daily(nil)})
	for range 50 {
		l.grant(minute, Requests(1))
	}
	for range 20 {
		l.number = 100 + rng.Uint64N(1e6)
		l.grant(1+rng.Int64N(minute-1), Requests(1))
	}
	open := l.book.holds.inOrder()
	rng.Shuffle(len(open), func(i, j int) { open[i], open[j] = open[j], open[i] })
	for _, h := range open {
		l.book.extend(l.settlement(h.key), minute, l.at)
	}
	copied := &ledger{t: t, book: l.book.clone(), rules: l.rules, now: l.now}
	loaded := &ledger{t: t, book: l.book.clone(), rules: l.rules, now: l.now}
	loaded.reload()
	for _, one := range []*ledger{l, copied, loaded} {
		one.pass(minute)
	}
	requireSame(t, l.text(), copied.text())
	requireSame(t, l.text(), loaded.text())
}

func TestExpiredHoldsAreRememberedUntilTheyAreForgotten(t *testing.T) {
	t.Parallel()
	for _, many := range []int{5, 3 * fewHolds} { // few are looked through, many have an index
		var s holds
		list := make([]*hold, many)
		for i := range list {
			list[i] = &hold{key: holdKey{1, uint64(i)}, charged: int64(i)}
			s.remember(list[i])
		}
		for n := range many {
			i := (n*7 + 2) % many
			require.Same(t, list[i], s.findLate(list[i].key))
			require.Nil(t, s.findLate(holdKey{2, uint64(i)}))
			s.forget(list[i])
			require.Nil(t, s.findLate(list[i].key))
			s.remember(list[i])
			require.Same(t, list[i], s.findLate(list[i].key))
			s.forget(list[i])
			require.Len(t, listed(t, &s.ended), s.late)
		}
		require.Equal(t, line{}, s.ended)
		require.Zero(t, s.late)
	}
}

func TestRecycledHoldsAreBlankAndFew(t *testing.T) {
	t.Parallel()
	var s holds
	h := &hold{key: holdKey{1, 2}, id: "x", quotas: []string{"q"}, amounts: *amounting(Requests(1)), asked: amounting(Requests(2)), charged: 1, released: true}
	s.recycle(h)
	require.Equal(t, &hold{}, s.blank())
	for range 2 * mostSpare {
		s.recycle(&hold{})
	}
	require.Len(t, s.spare, mostSpare)
}

func TestSettledIDsAreForgottenWhenTheyAreDue(t *testing.T) {
	rng := random(t)
	var s settledIDs
	due := map[string]int64{}
	for now := int64(1); now < 4000; now++ {
		if rng.IntN(3) > 0 {
			id := fmt.Sprint(rng.IntN(2000))
			due[id] = now + 50
			s.add(id, now+50)
		}
		s.sweep(now)
		for id, at := range due {
			if at <= now {
				delete(due, id)
			}
			require.Equal(t, at > now, s.has(id, now), "%s, due %d, at %d", id, at, now)
		}
		require.LessOrEqual(t, len(s.list()), 51)
		require.LessOrEqual(t, len(s.queue), 2*51+2)
		require.True(t, slices.IsSortedFunc(s.list(), func(x, y settledID) int { return cmp.Compare(x.forget, y.forget) }))
	}
	s.sweep(math.MaxInt64)
	require.Empty(t, s.until)
	require.Empty(t, s.queue)
}

func TestASettledIDIsForgottenInItsTimeBehindOneThatIsKeptLonger(t *testing.T) {
	t.Parallel()
	var s settledIDs
	s.add("long", 1000)
	for i := range int64(10 * leastSettled) {
		s.add(fmt.Sprint("short", i), 10+i)
		s.sweep(i)
	}
	require.True(t, s.has("long", 900))
	require.False(t, s.has("short0", 10))
	require.True(t, s.has("short630", 639))
	require.LessOrEqual(t, len(s.list()), 2*leastSettled, "those that are over do not pile up")
	require.LessOrEqual(t, len(s.until), 2*leastSettled)
}

func TestASettledIDSettledAgainIsKeptAsLongAsTheLater(t *testing.T) {
	t.Parallel()
	var s settledIDs
	s.add("a", 10)
	s.add("a", 20)
	s.add("a", 20)
	require.Len(t, s.list(), 2, "the same again is not remembered again")
	s.sweep(10)
	require.True(t, s.has("a", 10))
	s.sweep(20)
	require.False(t, s.has("a", 20))
}

func TestSettledIDsAreSweptWhenTheFirstIsDueOrWhenTheyAreMany(t *testing.T) {
	t.Parallel()
	require.Equal(t, latest, (*settledIDs)(nil).due())
	var s settledIDs
	require.Equal(t, latest, s.due())
	s.add("first", 20)
	require.Equal(t, int64(20), s.due())
	s.add("second", 10)
	require.Equal(t, int64(20), s.due())
	s.sweep(20)
	require.Equal(t, latest, s.due())
	for crowd := leastSettled; crowd <= 4*leastSettled; crowd *= 2 {
		for len(s.queue) < crowd-1 {
			s.add(fmt.Sprint(len(s.queue)), 100)
		}
		require.Equal(t, int64(100), s.due())
		s.add("one more", int64(100+crowd))
		require.Zero(t, s.due(), "at once")
		s.sweep(50)
		require.Equal(t, int64(100), s.due(), "there are as many still")
	}
}

func TestKeysOfHoldsSurviveAsText(t *testing.T) {
	t.Parallel()
	for _, key := range []holdKey{{0, 0}, {0, 1}, {35, 36}, {math.MaxUint64, math.MaxUint64}} {
		for _, quota := range []string{"q", "a@b", "-", ""} {
			back, name, ok := parseHoldKey(key.text(quota))
			require.True(t, ok)
			require.Equal(t, key, back)
			require.Equal(t, quota, name)
		}
	}
	for _, text := range []string{"", "@q", "1-2", "1@q", "-@q", "1-@q", "1-2-3@q", "ä-1@q", "+1-1@q", "3w5e11264sgsg-1@q"} {
		_, _, ok := parseHoldKey(text)
		require.False(t, ok, text)
	}
}

func TestOnlyHoldsOfOneQuotaWithoutAnIDArePlain(t *testing.T) {
	t.Parallel()
	require.True(t, (&hold{}).plain())
	require.False(t, (&hold{id: "x"}).plain())
	require.False(t, (&hold{quotas: []string{"a", "b"}}).plain())
	require.Equal(t, amounting(Requests(2)), (&hold{amounts: *amounting(Requests(1)), asked: amounting(Requests(2))}).original())
	require.Equal(t, amounting(Requests(1)), (&hold{amounts: *amounting(Requests(1))}).original())
}
