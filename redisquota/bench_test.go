package redisquota_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/redisquota/internal/redistest"
)

// What a batch of one call costs, beside the cheapest round trip that there is.
func BenchmarkRoundTrips(b *testing.B) {
	client := redistest.Start(b, "--appendonly", "no").Client()
	ctx := context.Background()
	b.Run("ping", func(b *testing.B) {
		for b.Loop() {
			require.NoError(b, client.Ping(ctx).Err())
		}
	})
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: open(b, client, "bench"), OnAlert: func(quota.Alert) {},
		Quotas: []quota.Quota{{Name: "calls", Limits: []quota.Limit{{Max: 1 << 40}, {Unit: quota.UnitTokens, Max: 1 << 40}}}},
	})
	require.NoError(b, err)
	b.Run("record", func(b *testing.B) {
		for b.Loop() {
			require.NoError(b, tracker.RecordUsage(ctx, "calls", quota.Tokens(1)))
		}
	})
	b.Run("reserve and commit", func(b *testing.B) {
		for b.Loop() {
			held, err := tracker.Reserve(ctx, "calls", quota.Tokens(1))
			require.NoError(b, err)
			require.NoError(b, held.Commit(ctx))
		}
	})
	b.Run("record, 64 at once", func(b *testing.B) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := tracker.RecordUsage(ctx, "calls", quota.Tokens(1)); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("reserve and commit, 64 at once", func(b *testing.B) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				held, err := tracker.Reserve(ctx, "calls", quota.Tokens(1))
				if err == nil {
					err = held.Commit(ctx)
				}
				if err != nil {
					b.Error(err)
				}
			}
		})
	})
	require.NoError(b, tracker.Close())
}
