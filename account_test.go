package quota

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// random returns a source of random numbers and prints its seed should the test fail.
func random(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

func bigOf(n int64) *big.Int { return big.NewInt(n) }

func product(a, b int64) *big.Int { return new(big.Int).Mul(bigOf(a), bigOf(b)) }

// ceil divides and rounds up; b is positive.
func ceil(a *big.Int, b int64) *big.Int {
	quotient, remainder := new(big.Int).DivMod(a, bigOf(b), new(big.Int))
	if remainder.Sign() > 0 {
		quotient.Add(quotient, bigOf(1))
	}
	return quotient
}

// A bucket is a Refill in exact arithmetic: level is what is missing in it, in units x length.
type bucket struct {
	max, length, at int64
	level           *big.Int
	changed         int64 // when max was changed
}

func (m *bucket) to(now int64) {
	if now > m.at {
		m.level.Sub(m.level, product(m.max, now-m.at))
		if m.level.Sign() < 0 {
			m.level.SetInt64(0)
		}
		m.at = now
	}
}

func (m *bucket) take(n int64) { m.level.Add(m.level, product(n, m.length)) }

// giveBack returns so much of what was granted then, less what has flowed back since.
func (m *bucket) giveBack(n, held, granted int64) {
	back := new(big.Int).Sub(bigOf(held), ceil(product(m.max, m.at-granted), m.length))
	if back.Sign() < 0 || granted < m.changed {
		back.SetInt64(0)
	}
	if back.Cmp(bigOf(n)) > 0 {
		back.SetInt64(n)
	}
	m.level.Sub(m.level, back.Mul(back, bigOf(m.length)))
}

func (m *bucket) setMax(n int64) {
	if n == m.max {
		return
	}
	m.level.Mul(ceil(m.level, m.length), bigOf(m.length))
	m.max, m.changed = n, m.at
}

// retryAt is the first instant at which n fits.
func (m *bucket) retryAt(n int64) *big.Int {
	over := new(big.Int).Sub(m.level, product(m.max-n, m.length))
	return new(big.Int).Add(bigOf(m.at), ceil(over, m.max))
}

// A grant of a rate: what was admitted when, and what of it was used in the end.
type admitted struct {
	key   holdKey
	at, n int64
	net   int64
}

func TestRefillIsExact(t *testing.T) {
	rng := random(t)
	for _, length := range []time.Duration{time.Microsecond, time.Second + 3, 5 * time.Hour, 100 * 365 * 24 * time.Hour} {
		for _, limit := range []int64{1, 7, 1500, math.MaxInt64 / 7, math.MaxInt64} {
			walkRefill(t, rng, limit, length)
		}
	}
}

func walkRefill(t *testing.T, rng *rand.Rand, limit int64, length time.Duration) {
	t.Helper()
	l := newLedger(t, Limit{Max: limit, Window: Refill(length)})
	m := &bucket{max: limit, length: int64(length), at: l.at, level: new(big.Int), changed: l.at}
	steady := rng.IntN(2) == 0 // the limit stays as it is
	var log, open []*admitted
	for range 150 {
		back := int64(0)
		if rng.IntN(8) == 0 {
			back = rng.Int64N(min(int64(length), hour)) // the clock steps back
		}
		l.to(l.at - back)
		l.pass(back + rng.Int64N(max(1, min(int64(length)/8, 50*day))))
		m.to(l.at)
		n := 1 + rng.Int64N(m.max)
		if rng.IntN(2) == 0 {
			n = 1 + rng.Int64N(max(1, m.max/16))
		}
		switch op := rng.IntN(7); {
		case op <= 3 && !l.book.today.countable(amounting(Requests(n))):
			// held together they would be more than can be counted, which the caller refuses
		case op <= 3:
			before := new(big.Int).Sub(product(m.max, m.length), m.level)
			key, ok := l.reserve(1+rng.Int64N(int64(length)), Requests(n))
			require.Equal(t, before.Cmp(product(n, m.length)) >= 0, ok, "admission of %d", n)
			if !ok {
				requireRefillRetry(t, l, m, n)
				break
			}
			m.take(n)
			one := &admitted{key: key, at: l.at, n: n, net: n}
			log, open = append(log, one), append(open, one)
		case op <= 5 && len(open) > 0:
			i := rng.IntN(len(open))
			one := open[i]
			open = slices.Delete(open, i, i+1)
			if l.book.holds.find(one.key) == nil && l.book.holds.findLate(one.key) == nil {
				break // long forgotten
			}
			one.net = rng.Int64N(one.n + 1) // it may have expired meanwhile: then this corrects the charge
			if one.net == 0 && rng.IntN(2) == 0 {
				require.False(t, l.release(one.key))
			} else {
				require.False(t, l.commit(one.key, Requests(one.net)))
			}
			m.giveBack(one.n-one.net, one.n, one.at)
		case op == 6 && !steady:
			limit := 1 + rng.Int64N(limit)
			l.configure(Limit{Max: limit, Window: Refill(length)})
			m.setMax(limit)
		}
		a := l.account()
		require.Equal(t, ceil(m.level, m.length), new(big.Int).Add(bigOf(a.used), bigOf(a.reserved)))
		require.GreaterOrEqual(t, m.level.Sign(), 0, "something was minted")
	}
	if !steady {
		return
	}
	for i, first := range log {
		sum := new(big.Int)
		for _, last := range log[i:] {
			sum.Add(sum, bigOf(last.net))
			most := new(big.Int).Add(product(limit, m.length), product(limit, last.at-first.at))
			require.LessOrEqual(t, new(big.Int).Mul(sum, bigOf(m.length)).Cmp(most), 0, "more than Max + Max x elapsed / d")
		}
	}
}

func requireRefillRetry(t *testing.T, l *ledger, m *bucket, n int64) {
	t.Helper()
	want := m.retryAt(n)
	at := l.retryAt(Requests(n))
	if want.Cmp(bigOf(latest)) >= 0 {
		require.Equal(t, latest, at)
		return
	}
	require.Equal(t, want, bigOf(at))
}

func TestRefillHasRoomAtRetryAtAndNotBefore(t *testing.T) {
	l := newLedger(t, Limit{Max: 7, Window: Refill(time.Second)})
	l.grant(hour, Requests(7))
	l.pass(3)
	for n := int64(1); n <= 7; n++ {
		at := l.retryAt(Requests(n))
		require.Equal(t, noon+share(n, second, 7, true), at)
		for _, d := range []int64{-1, 0} {
			later := &ledger{t: t, book: l.book.clone(), rules: l.rules, now: l.now}
			later.to(at + d)
			require.Equal(t, d < 0, later.book.judge(amounting(Requests(n)), later.at).refused, "%d at %+d ns", n, d)
		}
	}
}

func TestRefillMintsNothingWhenTheLimitWasHigherOrNewer(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 1000, Window: Refill(10 * time.Second)})
	old := l.grant(hour, Requests(100))
	l.pass(second) // all of it has flowed back
	l.configure(Limit{Max: 10, Window: Refill(10 * time.Second)})
	l.record(Tokens(1))
	l.book.use(amounting(Requests(100)), l.at)
	l.release(old)
	require.Equal(t, int64(100), l.account().used+l.account().reserved, "lowered")

	l = newLedger(t)
	old = l.grant(hour, Requests(100))
	l.configure(Limit{Max: 100, Window: Refill(10 * time.Second)})
	l.book.use(amounting(Requests(100)), l.at)
	l.release(old)
	l.requireBalance(100, 0)
}

func TestRefillGivesBackWhatIsReleasedAfterAReset(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 10, Window: Refill(10 * time.Second)})
	key := l.grant(hour, Requests(6))
	l.book.use(amounting(Requests(4)), l.at)
	l.book.reset(l.at)
	l.requireBalance(0, 6)
	l.release(key)
	l.requireBalance(0, 0)
}

func TestRefillFarBeyondItsLimitStaysExact(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: math.MaxInt64, Window: Refill(time.Second)})
	l.grant(hour, Requests(math.MaxInt64))
	l.book.use(amounting(Requests(math.MaxInt64)), l.at)
	l.book.use(amounting(Requests(math.MaxInt64)), l.at) // saturates
	l.requireBalance(math.MaxInt64, math.MaxInt64)
	require.Equal(t, noon+2*second, l.retryAt(Requests(math.MaxInt64)))
	require.Equal(t, noon+second+1, l.retryAt(Requests(1)))
	l.pass(second)
	l.requireBalance(0, math.MaxInt64)
	l.pass(second)
	l.requireBalance(0, 0)
}

// A rolling log knows when each amount was admitted.
type rollingLog struct {
	length  int64
	entries []*admitted
}

func (m *rollingLog) sum(after int64) (n int64) {
	for _, e := range m.entries {
		if e.at > after {
			n += e.net
		}
	}
	return n
}

func TestRollingNeverHasMoreThanMaxInAnySpan(t *testing.T) {
	rng := random(t)
	for _, length := range []time.Duration{time.Microsecond, time.Second + 3, 5 * time.Hour} {
		for range 6 {
			walkRolling(t, rng, length)
		}
	}
}

func walkRolling(t *testing.T, rng *rand.Rand, length time.Duration) {
	t.Helper()
	const limit = 100
	l := newLedger(t, Limit{Max: limit, Window: Rolling(length)})
	d := int64(length)
	m := &rollingLog{length: d}
	var open []*admitted
	overruns := rng.IntN(2) == 0
	for range 200 {
		l.pass(rng.Int64N(d/8 + 1))
		if rng.IntN(20) == 0 {
			l.reload()
		}
		n := 1 + rng.Int64N(limit)/(1+rng.Int64N(20))
		if rng.IntN(5) > 1 || len(open) == 0 {
			if key, ok := l.reserve(1000*day, Requests(n)); ok {
				one := &admitted{key: key, at: l.at, n: n, net: n}
				m.entries, open = append(m.entries, one), append(open, one)
				require.LessOrEqual(t, m.sum(l.at-d), int64(limit)+overrunIn(m, l.at-d))
			} else {
				at := l.retryAt(Requests(n))
				require.Greater(t, at, l.at)
				for _, early := range []int64{1, 0} {
					later := l.book.clone()
					later.advance(l.rules, at-early)
					require.Equal(t, early == 1, later.judge(amounting(Requests(n)), at-early).refused)
				}
			}
		} else {
			i := rng.IntN(len(open))
			one := open[i]
			open = slices.Delete(open, i, i+1)
			actual := rng.Int64N(one.n + 1)
			if overruns {
				actual += rng.Int64N(5)
			}
			l.commit(one.key, Requests(actual))
			one.net = min(one.n, actual)
			if over := actual - one.net; over > 0 {
				m.entries = append(m.entries, &admitted{at: l.at, net: over})
			}
		}
		a := l.account()
		require.GreaterOrEqual(t, a.used+a.reserved, m.sum(l.at-d), "too early")
		require.LessOrEqual(t, a.used+a.reserved, m.sum(l.at-d-max(1, d/50)), "too late")
		require.LessOrEqual(t, len(a.slices), slicesPerWindow+3+1, "slices of %v", length)
	}
}

func overrunIn(m *rollingLog, after int64) (n int64) {
	for _, e := range m.entries {
		if e.at > after && e.n == 0 {
			n += e.net
		}
	}
	return n
}

func TestRollingSettlesIntoTheSliceOfTheGrantOrNone(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 100, Window: Rolling(50 * time.Second)})
	early, gone := l.grant(hour, Requests(10)), l.grant(hour, Requests(20))
	l.pass(40 * second)
	l.commit(early, Requests(4))
	require.Equal(t, []slice{{start: noon, used: 4, reserved: 20}}, l.account().slices)
	l.pass(11*second - 1)
	l.requireBalance(4, 20)
	l.pass(1)
	l.requireBalance(0, 0)
	l.commit(gone, Requests(25))
	l.requireBalance(5, 0) // the overrun alone, now
	require.Equal(t, []slice{{start: noon + 51*second, used: 5}}, l.account().slices)
}

func TestRollingCountsExactlyAgainOnceItNoLongerSaturates(t *testing.T) {
	t.Parallel()
	l := newLedger(t, Limit{Max: 100, Window: Rolling(50 * time.Second)})
	l.book.use(amounting(Requests(math.MaxInt64)), l.at)
	l.pass(2 * second)
	l.book.use(amounting(Requests(5)), l.at)
	l.requireBalance(math.MaxInt64, 0)
	l.pass(49 * second)
	l.requireBalance(5, 0)
}

func TestCountersSaturate(t *testing.T) {
	t.Parallel()
	for _, window := range everyWindow() {
		t.Run(window.String(), func(t *testing.T) {
			l := newLedger(t, Limit{Max: math.MaxInt64, Window: window})
			keys := []holdKey{l.grant(hour, Requests(math.MaxInt64-1)), l.grant(hour, Requests(1))}
			l.commit(keys[0], Requests(math.MaxInt64))
			l.book.use(amounting(Requests(math.MaxInt64)), l.at)
			l.commit(keys[1], Requests(math.MaxInt64))
			if window != InFlight() {
				l.requireBalance(math.MaxInt64, 0)
			}
			require.Equal(t, int64(math.MaxInt64), l.book.today.used(UnitRequests))
			l.reload()
			require.GreaterOrEqual(t, l.account().free(l.account().max), int64(-math.MaxInt64))
			l.pass(400 * day)
			l.book.reset(l.at)
			l.requireBalance(0, 0)
		})
	}
}

// everyWindow is one window of each kind.
func everyWindow() []Window {
	return []Window{
		Daily(nil), Weekly(nil, time.Monday), Monthly(nil, 15), Every(time.Minute), Rolling(time.Minute),
		Refill(time.Minute), Session(time.Hour), Lifetime(), InFlight(),
	}
}

func TestFreeStopsAtWhatCanBeCounted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ max, used, reserved, want int64 }{
		{10, 3, 4, 3}, {0, 3, 4, -7}, {0, math.MaxInt64, 1, math.MinInt64}, {0, math.MaxInt64, 2, math.MinInt64},
		{math.MaxInt64, math.MaxInt64, math.MaxInt64, -math.MaxInt64}, {math.MaxInt64, 0, 0, math.MaxInt64},
	} {
		a := account{used: c.used, reserved: c.reserved}
		require.Equal(t, c.want, a.free(c.max), fmt.Sprint(c))
	}
}
