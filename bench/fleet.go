package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"example.com/quota"
	"example.com/quota/redisquota"
)

// Who decides in row 15.
const (
	oursOnRedis = "quota"
	oursAged    = "quota, 90 days of history"
	plainRate   = "redis_rate Allow"
	pipedRate   = "redis_rate Allow, automatic pipeline"
)

// A fleet is what one process or several share on a Redis.
type fleet struct {
	Address   string
	Namespace string
	Bound     int // of the quota that is to be used up
}

// The quotas of a fleet beside account.
const (
	boundedQuota = "bounded"
	usedUpQuota  = "used up"
)

func (f fleet) quotas() []quota.Quota {
	return []quota.Quota{
		{Name: account, Limits: threeLimits(huge)},
		{Name: boundedQuota, Limits: []quota.Limit{{Max: int64(f.Bound), Window: quota.Lifetime()}}},
		{Name: usedUpQuota, Limits: threeLimits(1)},
	}
}

// A member is one process of a fleet.
type member struct {
	wire    *wire
	tracker *quota.QuotaTracker // nil: it is a peer
	steps   []step              // decisions that are all granted
	refused step                // one that is not
	take    func() (granted bool, err error)
	close   func() error
}

// join opens a member with so many callers. Its warm-up leaves no usage of tokens.
func (f fleet) join(b *bench, who string, callers int) (*member, error) {
	w := &wire{}
	client := redisClient(f.Address, w, callers)
	switch who {
	case plainRate:
		return f.peer(b.ctx, redis_rate.NewLimiter(client), w, client.Close)
	case pipedRate:
		piped, err := client.AutoPipeline()
		if err != nil {
			return nil, errors.Join(err, client.Close())
		}
		return f.peer(b.ctx, redis_rate.NewLimiter(piped), w, client.Close)
	}
	m, err := f.ours(b, w, client, who == oursAged, callers)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return m, nil
}

func (f fleet) ours(b *bench, w *wire, client *redis.Client, aged bool, callers int) (*member, error) {
	store, err := redisquota.New(b.ctx, client, redisquota.Options{Namespace: f.Namespace, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	if aged {
		if err := b.saveHistory(store); err != nil {
			return nil, err
		}
	}
	t, err := b.tracker(store, f.quotas()...)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(t.RecordUsage(b.ctx, account, quota.Tokens(0)), t.RecordUsage(b.ctx, usedUpQuota, quota.Tokens(1))); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return &member{
		wire: w, tracker: t, steps: reserveThenCommit(b.ctx, t, callers), refused: refusedBy(b.ctx, t, usedUpQuota),
		take: func() (bool, error) {
			r, err := t.Reserve(b.ctx, boundedQuota)
			if errors.Is(err, quota.ErrExceeded) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
			return true, r.Commit(b.ctx)
		},
		close: func() error { return errors.Join(t.Close(), client.Close()) },
	}, nil
}

func (f fleet) peer(ctx context.Context, limiter *redis_rate.Limiter, w *wire, closeClient func() error) (*member, error) {
	allow := func(key string, limit redis_rate.Limit) (bool, error) {
		answer, err := limiter.Allow(ctx, f.Namespace+":"+key, limit)
		return err == nil && answer.Allowed == 1, err
	}
	unlimited := redis_rate.Limit{Rate: 1_000_000_000, Burst: 1_000_000_000, Period: time.Second}
	of := func(most int) redis_rate.Limit {
		return redis_rate.Limit{Rate: 1, Burst: most, Period: 1000 * time.Hour}
	}
	expect := func(want bool, key string, limit redis_rate.Limit, otherwise error) step {
		return func(int) error {
			allowed, err := allow(key, limit)
			if err == nil && allowed != want {
				err = otherwise
			}
			return err
		}
	}
	m := &member{
		wire: w, steps: []step{expect(true, account, unlimited, errDenied)}, refused: expect(false, usedUpQuota, of(1), errAdmitted),
		take: func() (bool, error) { return allow(boundedQuota, of(f.Bound)) }, close: closeClient,
	}
	if _, err := allow(usedUpQuota, of(1)); err != nil {
		return nil, errors.Join(err, closeClient())
	}
	return m, m.steps[0](0)
}
