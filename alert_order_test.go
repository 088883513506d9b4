package quota_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"example.com/quota"
)

func TestTheCrossingCallReturnsAfterItsAlertsWereToldAlsoWhereSomebodyHasJustLooked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rounds = 50
		var quotas []quota.Quota
		for i := range rounds {
			quotas = append(quotas, quota.Quota{Name: fmt.Sprint(i), Limits: []quota.Limit{{Max: 10, AlertThresholds: []int{50}}}})
		}
		telling, told := make(chan struct{}), make(chan struct{})
		tracker := startOn(t, newSharedStore(), withQuotas(quotas...), withAlerts(func(quota.Alert) {
			telling <- struct{}{}
			<-told
		}))
		for i := range rounds {
			require.True(t, tracker.CanUse(quotas[i].Name)) // a look at the store is on its way
			returned := make(chan error, 1)
			go func() { returned <- tracker.RecordUsage(t.Context(), quotas[i].Name, quota.Requests(9)) }()
			<-telling
			synctest.Wait()
			require.Empty(t, returned, "the callback has not returned")
			told <- struct{}{}
			require.NoError(t, <-returned)
		}
	})
}
