package quota

import (
	"math"
	"math/bits"
	"slices"
	"time"
)

// rules are what a book must know of the configuration: one quota's limits with every default filled in. They never
// change once made; a new configuration makes new ones.
type rules struct {
	limits    []limitRule
	estimates amounts // what a call needs of the units it does not name
	template  bool
	foreign   bool // nobody here has configured the quota: time changes nothing in its book
	ttl       time.Duration
	onExpiry  ExpiryPolicy
	location  *time.Location // where days begin
	zone      func(name string) (*time.Location, error)
	history   func(quota string) []DaySummary // finished days; nil: none
}

// A limitRule is one limit with the key of its accounts and the thresholds that apply.
type limitRule struct {
	Limit
	key        *limitKey
	thresholds []int // ascending, percent of Max
}

// copied is the limit for those outside, who may change what they get.
func (r *limitRule) copied() Limit {
	limit := r.Limit
	limit.AlertThresholds = slices.Clone(limit.AlertThresholds)
	return limit
}

// day is the window of the day totals.
func (r *rules) day(at int64) (start, end int64) {
	return Window{kind: kindDaily}.period(at, r.location)
}

// share returns n x part / whole for numbers that are not negative, rounded down or up, at most MaxInt64.
func share(n, part, whole int64, up bool) int64 {
	high, low := bits.Mul64(uint64(n), uint64(part))
	if high >= uint64(whole) {
		return math.MaxInt64
	}
	quotient, remainder := bits.Div64(high, low, uint64(whole))
	if up && remainder > 0 {
		quotient++
	}
	return int64(min(quotient, math.MaxInt64))
}
