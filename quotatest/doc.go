// Package quotatest helps to test code that uses package quota: a tracker in memory with a clock turned by hand, and a
// conformance suite for whoever writes a quota.Persistence.
//
//	func TestStopsAtTheDailyLimit(t *testing.T) {
//		tracker, clock := quotatest.New(t, quota.Quota{Name: "gemini_cli", Limits: []quota.Limit{{Max: 2}}})
//		dispatch(tracker)
//		dispatch(tracker)
//		if tracker.CanUse("gemini_cli") {
//			t.Error("a third call was admitted")
//		}
//		clock.Advance(24 * time.Hour)
//		if !tracker.CanUse("gemini_cli") {
//			t.Error("the next day did not start anew")
//		}
//	}
//
// It needs nothing but the standard library and package quota.
package quotatest
