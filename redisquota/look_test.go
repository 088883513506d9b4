package redisquota_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/redisquota/internal/redistest"
)

func TestALookAndARefusalDoNotWaitForATurn(t *testing.T) {
	client := redistest.Start(t).Client()
	store, rival := open(t, client, "look"), open(t, client, "look")
	book := books(t, 2)
	put(t, store, "calls", book[0])
	put(t, rival, "calls", book[1]) // store knows an older one
	hold(t, client, "look", "another", 0, time.Hour)
	begun := time.Now()
	require.NoError(t, store.Update(t.Context(), []string{"calls"}, func(*quota.Tx) error { return nil }))
	require.Less(t, time.Since(begun), 500*time.Millisecond)
}
