package pgquota_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/pgquota"
	"example.com/quota/quotatest"
)

// A reopener is a Store that a second pool can open.
type reopener struct {
	*pgquota.Store
	reopen func() (quota.Persistence, error)
}

func (r reopener) Reopen() (quota.Persistence, error) { return r.reopen() }

func TestAStoreIsASharedPersistence(t *testing.T) {
	t.Parallel()
	one, other := pool(t), pool(t)
	require.NoError(t, quotatest.TestPersistence(func() (quota.Persistence, error) {
		opts := pgquota.Options{Schema: newSchema()}
		store, err := pgquota.New(t.Context(), one, opts)
		return reopener{store, func() (quota.Persistence, error) { return pgquota.New(t.Context(), other, opts) }}, err
	}))
}
