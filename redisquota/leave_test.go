package redisquota

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota/redisquota/internal/redistest"
)

func TestWhenATurnIsGivenBackThoseWhoWaitAreToldAndComeSooner(t *testing.T) {
	client := redistest.Start(t).Client()
	store, err := New(t.Context(), client, Options{Namespace: "leave"})
	require.NoError(t, err)
	lease := "{quota:leave}:lease"
	now := client.Time(t.Context()).Val()
	for _, one := range []struct {
		id          string
		begins, end time.Duration
		name        string
	}{
		{store.id, 0, time.Hour, "calls"},
		{"second", time.Hour, 3 * time.Hour, "calls"},
		{"third", 3 * time.Hour, 4 * time.Hour, "calls"},
		{"elsewhere", 30 * time.Minute, time.Hour, "others"},
	} {
		entry := fmt.Sprintf(`["%d","%d",[%q]]`, now.Add(one.begins).UnixMicro(), now.Add(one.end).UnixMicro(), one.name)
		require.NoError(t, client.HSet(t.Context(), lease, one.id, entry).Err())
	}
	end := store.stay()
	store.leave()
	require.True(t, client.HExists(t.Context(), lease, store.id).Val(), "it is in use")
	end(0)
	store.leave()
	require.False(t, client.HExists(t.Context(), lease, store.id).Val())
	left := func(id string) (begins, ends, told time.Duration) {
		var entry []any
		require.NoError(t, json.Unmarshal([]byte(client.HGet(t.Context(), lease, id).Val()), &entry))
		at := func(i int) time.Duration {
			micros, err := strconv.ParseInt(entry[i].(string), 10, 64)
			require.NoError(t, err)
			return time.UnixMicro(micros).Sub(now).Round(time.Minute)
		}
		micros, err := client.LPop(t.Context(), lease+":"+id).Int64()
		require.NoError(t, err)
		return at(0), at(1), (time.Duration(micros) * time.Microsecond).Round(time.Minute)
	}
	for _, one := range []struct {
		id           string
		begins, ends time.Duration
	}{{"second", 0, 2 * time.Hour}, {"third", 2 * time.Hour, 3 * time.Hour}, {"elsewhere", 0, 30 * time.Minute}} {
		begins, ends, told := left(one.id)
		require.Equal(t, one.begins, begins, one.id)
		require.Equal(t, one.ends, ends, one.id)
		require.Equal(t, one.begins, told, one.id)
	}
}
