package pgquota_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/pgquota"
	"example.com/quota/quotatest"
)

func TestAStoreIsASharedPersistence(t *testing.T) {
	connections := pool(t)
	require.NoError(t, quotatest.TestPersistence(func() (quota.Persistence, error) {
		return pgquota.New(t.Context(), connections, pgquota.Options{Schema: newSchema()})
	}))
}
