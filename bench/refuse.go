package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	"github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/store/memory"
	"golang.org/x/time/rate"

	"example.com/quota"
)

// refusedKeys is how many accounts are asked at random.
const refusedKeys = 1000

// refuse reserves from quotas that are full, and looks at what each refusal says.
func (b *bench) refuse(t *quota.QuotaTracker, keys *draws) func(worker, n int) error {
	return func(worker, n int) error {
		explained := 0
		for range n {
			_, err := t.Reserve(b.ctx, keys.key(worker), quota.Tokens(1))
			// Reserve returns it as it is, and errors.As takes time of its own.
			refused, ok := err.(*quota.ExceededError) //nolint:errorlint // see above
			if ok && refused.Limit.Unit == quota.UnitTokens && !refused.RetryAt.IsZero() {
				explained++
			}
		}
		return all(explained, n, errAdmitted)
	}
}

// measureRefusing is row 3.
func (b *bench) measureRefusing() ([]finding, error) {
	names := keysOf("account:", refusedKeys, b.seed)
	quotas := make([]quota.Quota, len(names))
	for i, name := range names {
		quotas[i] = fullQuota(name)
	}
	t, err := b.tracker(quota.InMemory(), quotas...)
	if err != nil {
		return nil, err
	}
	defer b.shut(t)
	for _, name := range names {
		if err := t.RecordUsage(b.ctx, name, quota.Tokens(1000)); err != nil {
			return nil, err
		}
	}
	ulule, err := emptyUlule(b.ctx, names)
	if err != nil {
		return nil, err
	}
	gcra, err := emptyGCRA(b.ctx, names)
	if err != nil {
		return nil, err
	}
	limiters := make(map[string]*rate.Limiter, len(names))
	for _, name := range names {
		limiters[name] = emptyRate()
	}
	var findings []finding
	for _, workers := range []int{1, 2} {
		ours := draw(names, workers, b.seed)
		first, second, third := draw(names, workers, b.seed), draw(names, workers, b.seed), draw(names, workers, b.seed)
		refusals := counted(parallel("Reserve", workers, b.refuse(t, ours)), "refusals", 1, func() (int64, error) {
			return denials(t, names), nil
		})
		found, err := compare(b.pace, refusals,
			parallel("ulule Get", workers, func(worker, n int) error { return ulule(first, worker, n) }),
			parallel("throttled GCRA", workers, func(worker, n int) error { return gcra(second, worker, n) }),
			parallel("x/time/rate Allow", workers, func(worker, n int) error {
				went := 0
				for range n {
					if !limiters[third.key(worker)].Allow() {
						went++
					}
				}
				return all(went, n, errAdmitted)
			}))
		if err != nil {
			return nil, err
		}
		findings = append(findings, refusalLines(workers, found)...)
	}
	mixed, err := b.measureMixed()
	return append(findings, mixed...), err
}

// refusalLines puts the goal on the fastest peer whose answer says until when.
func refusalLines(workers int, found []series) []finding {
	work := "a denied Reserve, " + goroutines(workers)
	fastest := 1
	if summarize(found[2].perOp).median < summarize(found[1].perOp).median {
		fastest = 2
	}
	var lines []finding
	for i := 1; i < len(found); i++ {
		line := against(3, work, found[0], found[i])
		if workers == 1 && i == fastest {
			line = line.want(atMost(1.2)).lacks("one limit, so no answer to which; no holds, no state")
		}
		lines = append(lines, line)
	}
	return lines
}

// denials is what all quotas have counted today. The turn of a day between two readings is told by the check.
func denials(t *quota.QuotaTracker, names []string) int64 {
	var sum int64
	for _, each := range t.Summary(names...).Quotas {
		sum += each.Today.Denied
	}
	return sum
}

// emptyUlule returns a loop of denied calls. Its cleaner does not run meanwhile.
func emptyUlule(ctx context.Context, names []string) (func(keys *draws, worker, n int) error, error) {
	store := memory.NewStoreWithOptions(limiter.StoreOptions{Prefix: "", CleanUpInterval: time.Hour})
	instance := limiter.New(store, limiter.Rate{Period: 1000 * time.Hour, Limit: 1})
	for _, name := range names {
		if _, err := instance.Get(ctx, name); err != nil {
			return nil, err
		}
	}
	return func(keys *draws, worker, n int) error {
		went := 0
		for range n {
			state, err := instance.Get(ctx, keys.key(worker))
			if err == nil && state.Reached && state.Reset > 0 {
				went++
			}
		}
		return all(went, n, errAdmitted)
	}, nil
}

// emptyGCRA returns a loop of denied calls, on the store without an LRU list, which is the faster one.
func emptyGCRA(ctx context.Context, names []string) (func(keys *draws, worker, n int) error, error) {
	store, err := memstore.NewCtx(0)
	if err != nil {
		return nil, err
	}
	gcra, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{MaxRate: throttled.PerDuration(1, 1000*time.Hour)})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if limited, _, err := gcra.RateLimitCtx(ctx, name, 1); limited || err != nil {
			return nil, errors.Join(errDenied, err)
		}
	}
	return func(keys *draws, worker, n int) error {
		went := 0
		for range n {
			limited, result, err := gcra.RateLimitCtx(ctx, keys.key(worker), 1)
			if err == nil && limited && result.RetryAfter > 0 {
				went++
			}
		}
		return all(went, n, errAdmitted)
	}, nil
}

// measureMixed lets a bucket of 200,000 a second bind in part: whoever is faster is refused more often, so a number
// here is the price of a mixture, not of an answer.
func (b *bench) measureMixed() ([]finding, error) {
	const burst, every = 200, time.Millisecond
	t, err := b.tracker(quota.InMemory(), quota.Quota{Name: "bucket", Limits: []quota.Limit{
		{Max: burst, Window: quota.Refill(every)}, {Unit: "admitted", Max: huge, Window: quota.Lifetime()}}})
	if err != nil {
		return nil, err
	}
	defer b.shut(t)
	store, err := memstore.NewCtx(0)
	if err != nil {
		return nil, err
	}
	gcra, err := throttled.NewGCRARateLimiterCtx(store,
		throttled.RateQuota{MaxRate: throttled.PerDuration(burst, every), MaxBurst: burst - 1})
	if err != nil {
		return nil, err
	}
	limiter := rate.NewLimiter(burst*rate.Every(every), burst)

	var admitted [3]atomic.Int64
	mine := serial("Reserve + Commit", func(n int) error {
		for range n {
			r, err := t.Reserve(b.ctx, "bucket", quota.Requests(1), quota.Amount{Unit: "admitted", N: 1})
			if errors.Is(err, quota.ErrExceeded) {
				continue
			}
			if err == nil {
				err = r.Commit(b.ctx)
			}
			if err != nil {
				return err
			}
			admitted[0].Add(1)
		}
		return nil
	})
	found, err := compare(b.pace, mine,
		serial("x/time/rate Allow", func(n int) error {
			for range n {
				if limiter.Allow() {
					admitted[1].Add(1)
				}
			}
			return nil
		}),
		serial("throttled GCRA", func(n int) error {
			for range n {
				limited, _, err := gcra.RateLimitCtx(b.ctx, "bucket", 1)
				if err != nil {
					return err
				}
				if !limited {
					admitted[2].Add(1)
				}
			}
			return nil
		}))
	if err != nil {
		return nil, err
	}
	counts, err := used(t, "bucket", 1)
	if err != nil {
		return nil, err
	}
	if counts != admitted[0].Load() {
		return nil, fmt.Errorf("%d admitted, but the tracker counts %d", admitted[0].Load(), counts)
	}
	shares := make([]string, len(found))
	for i, s := range found {
		shares[i] = fmt.Sprintf("%s %.0f %%", s.name, 100*float64(admitted[i].Load())/float64(s.ops))
	}
	b.say(3, "A bucket of %d per %v that binds in part admitted: %s, %s, %s.", burst, every, shares[0], shares[1], shares[2])
	const work = "Reserve + Commit on a bucket of 200,000/s that binds in part"
	return []finding{against(3, work, found[0], found[1]), against(3, work, found[0], found[2])}, nil
}
