package storetest

import (
	"math/rand/v2"
	"slices"
	"time"

	"example.com/quota"
)

// shapes are the limits that a sequence has had, by quota and limit, and when it had them last.
type shapes map[string]time.Time

// surelyDropped is after how long a limit is that nobody has.
const surelyDropped = 4 * day

// draw chooses quotas: of every kind of window, with limits that are met soon. A limit that nobody has had for two days, or
// half a day less, may be forgotten or not: it comes back before, or when it certainly is.
func (had shapes) draw(random *rand.Rand, now time.Time) []quota.Quota {
	quotas := drawQuotas(random)
	for i, q := range quotas {
		quotas[i].Limits = slices.DeleteFunc(q.Limits, func(limit quota.Limit) bool {
			gone := now.Sub(had[shape(q, limit)])
			return gone > day && gone < surelyDropped || random.IntN(3) == 0
		})
	}
	return quotas
}

// use notes that these were had until now.
func (had shapes) use(quotas []quota.Quota, now time.Time) {
	for _, q := range quotas {
		for _, limit := range q.Limits {
			had[shape(q, limit)] = now
		}
	}
}

func shape(q quota.Quota, limit quota.Limit) string { return q.Name + "/" + limit.String() }

func drawQuotas(random *rand.Rand) []quota.Quota {
	some := func(n int64) int64 { return n/2 + random.Int64N(n) }
	return []quota.Quota{
		{Name: "calls", Aliases: []string{"c"}, Limits: []quota.Limit{
			{Max: some(40)},
			{Max: some(150), Window: quota.Weekly(nil, time.Wednesday)},
			{Unit: quota.UnitTokens, Max: some(1500), Window: quota.Rolling(5000 * time.Second), Estimate: 40},
			{Unit: quota.UnitUSD, Max: some(20) * quota.Dollar, Window: quota.Monthly(nil, 31)},
			{Unit: "images", Max: some(8), Window: quota.Lifetime(), Soft: true},
		}},
		{Name: "burst", Limits: []quota.Limit{
			{Max: some(10), Window: quota.Every(10 * time.Minute), AlertThresholds: []int{75}},
			{Max: some(40), Window: quota.Session(5 * time.Hour)},
			{Max: some(6), Window: quota.InFlight()},
			{Unit: quota.UnitInputTokens, Max: some(800), Window: quota.Refill(time.Hour)},
			{Unit: quota.UnitOutputTokens, Max: some(1000), Soft: true},
		}},
		{Name: "user:*", Limits: []quota.Limit{
			{Max: some(10)},
			{Unit: quota.UnitTokens, Max: some(600), Window: quota.Every(time.Hour), NoAlerts: true},
		}},
		{Name: "slow", Limits: []quota.Limit{{Max: some(6), Window: quota.Rolling(500 * time.Second)}}},
		{Name: "free"},
	}
}
