package quota

import "time"

// A QuotaStatus is how one quota stands.
type QuotaStatus struct {
	Name         string        `json:"name"`
	Reservations int           `json:"reservations"`          // open
	Waiting      int           `json:"waiting"`               // callers in Wait, in this process
	ClosedUntil  time.Time     `json:"closed_until,omitzero"` // by Observe
	Limits       []LimitStatus `json:"limits"`                // in the order they were configured
	Today        DaySummary    `json:"today"`
}

// A LimitStatus is how full one limit is.
type LimitStatus struct {
	Limit                 // as configured
	Used        int64     `json:"used"`
	Reserved    int64     `json:"reserved"`
	Remaining   int64     `json:"remaining"`            // Max - Used - Reserved, not below 0
	Percent     float64   `json:"percent"`              // Used of Max; Max 0: 0 unused, else 100
	ResetsAt    time.Time `json:"resets_at,omitzero"`   // zero: never, or always (Rolling, Refill)
	ExhaustsAt  time.Time `json:"exhausts_at,omitzero"` // straight-line forecast inside this window; zero: not at this pace, or too little data
	AlertsFired []int     `json:"alerts_fired,omitempty"`
}

// A DaySummary is one day of one quota, in the days of Config.Location.
type DaySummary struct {
	Quota        string           `json:"quota"`
	Day          time.Time        `json:"day"`                 // its first instant
	Used         map[Unit]int64   `json:"used,omitempty"`      // every unit seen, limited or not; tokens include input and output
	Estimated    map[Unit]int64   `json:"estimated,omitempty"` // of Used: charged without knowing the actual usage
	PeakReserved map[Unit]int64   `json:"peak_reserved,omitempty"`
	Calls        int64            `json:"calls,omitempty"`
	Denied       int64            `json:"denied,omitempty"`
	Expired      int64            `json:"expired,omitempty"`
	DeniedBy     map[string]int64 `json:"denied_by,omitempty"` // "requests per day": 12
	Alerts       []string         `json:"alerts,omitempty"`    // "50% of requests per day"
}

// A Summary is how all quotas stand.
type Summary struct {
	At        time.Time     `json:"at"`
	Quotas    []QuotaStatus `json:"quotas"`              // by name
	Recovered string        `json:"recovered,omitempty"` // what went wrong with the saved state, and what may be missing; "" when nothing did
}
