package redisquota

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"example.com/quota/redisquota/internal/redistest"
)

func TestATinyWaitForATurnIsNotForEver(t *testing.T) {
	client := redistest.Start(t).Client()
	s, err := New(t.Context(), client, Options{Namespace: "tiny"})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	begun := time.Now()
	s.listen(ctx, 400*time.Nanosecond)
	require.Less(t, time.Since(begun), time.Second)
}

func TestWhatAWaitingStoreIsToldIsBoundedToo(t *testing.T) {
	client := redistest.Start(t).Client()
	s, err := New(t.Context(), client, Options{Namespace: "told"})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, client.RPush(ctx, "{quota:told}:lease:"+s.id, (20*time.Second).Microseconds()).Err())
	begun := time.Now()
	s.awaitTurn(ctx, 6*time.Second)
	require.Less(t, time.Since(begun), 10*time.Second) // a second
}

// older makes BLPOP what it is before Redis 7.0.8: below a millisecond it blocks for ever.
type older struct{}

func (older) DialHook(next redis.DialHook) redis.DialHook { return next }
func (older) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (older) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "blpop" {
			args := cmd.Args()
			if text := args[2].(string); len(text) > 4 && text[:5] == "0.000" {
				args[2] = "0"
			}
		}
		return next(ctx, cmd)
	}
}

func TestOlderServersThatTakeLessThanAMillisecondForNoBoundAreNotAskedFor(t *testing.T) {
	client := redistest.Start(t).Client()
	client.AddHook(older{})
	s, err := New(t.Context(), client, Options{Namespace: "older"})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	begun := time.Now()
	s.awaitTurn(ctx, 900*time.Microsecond)
	require.Less(t, time.Since(begun), time.Second)
}

// stalled is a connection that has gone without anybody being told, when a BLPOP is sent.
type stalled struct{ net.Conn }

func (c stalled) Write(b []byte) (int, error) {
	for i := 0; i+5 <= len(b); i++ {
		if string(b[i:i+5]) == "blpop" {
			return len(b), nil
		}
	}
	return c.Conn.Write(b)
}

func TestALostConnectionDelaysNoLongerThanTheTurn(t *testing.T) {
	server := redistest.Start(t)
	client := server.Client(func(o *redis.Options) {
		o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, network, addr)
			return stalled{c}, err
		}
	})
	s, err := New(t.Context(), client, Options{Namespace: "lost"})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	begun := time.Now()
	s.awaitTurn(ctx, 20*time.Millisecond)
	require.Less(t, time.Since(begun), 2*time.Second)
}
