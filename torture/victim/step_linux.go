//go:build amd64 || arm64

package victim

import (
	"errors"
	"strconv"
	"syscall"
	"time"

	"example.com/quota"
)

// A Step is one thing that a victim is told to do.
type Step struct {
	Do       string        `json:"do"`
	Path     string        `json:"path,omitempty"`
	At       time.Time     `json:"at,omitzero"`       // open: what the clock says
	Lazy     time.Duration `json:"lazy,omitempty"`    // open: the FlushInterval
	Plain    bool          `json:"plain,omitempty"`   // open: the file is a Persistence, and no SharedPersistence
	Lowered  bool          `json:"lowered,omitempty"` // open and configure: with the lowered limit
	Quotas   []string      `json:"quotas,omitempty"`
	ID       string        `json:"id,omitempty"`
	Requests int64         `json:"requests,omitempty"`
	Tokens   int64         `json:"tokens,omitempty"` // observe: how many remain
	For      time.Duration `json:"for,omitempty"`
	IDs      []string      `json:"ids,omitempty"`   // look: reservations to look for
	Steps    []Step        `json:"steps,omitempty"` // burst: done one after the other
}

// What a victim can be told to do. A step that none of the tracker's calls stands behind: Trap, Look, Count.
const (
	Open      = "open"
	Trapped   = "trap"      // ask before each call from now on
	Record    = "record"    // RecordUsage
	Reserve   = "reserve"   // Acquire for all of Quotas, under ID
	Anonymous = "anonymous" // Acquire without an ID
	Refused   = "refused"   // Reserve of more than there is room for
	Commit    = "commit"
	Release   = "release"
	GiveBack  = "giveback" // Release without a handle
	Extend    = "extend"
	Observe   = "observe"
	Configure = "configure" // SetQuotas
	Reset     = "reset"
	Advance   = "advance" // the clock moves on: what is due then happens
	Flush     = "flush"
	Burst     = "burst"
	Close     = "close"
	Clear     = "clear"
	Store     = "store" // the state is loaded from the file and saved again without a tracker
	Look      = "look"
)

func (s Step) String() string {
	text := s.Do
	for _, name := range s.Quotas {
		text += " " + name
	}
	if s.ID != "" {
		text += " " + s.ID
	}
	if s.Requests+s.Tokens > 0 {
		text += " " + strconv.FormatInt(s.Requests, 10) + " requests, " + strconv.FormatInt(s.Tokens, 10) + " tokens"
	}
	if s.For != 0 {
		text += " for " + s.For.String()
	}
	for _, one := range s.Steps {
		text += " [" + one.String() + "]"
	}
	return text
}

// A Result is what came of a step.
type Result struct {
	Error string   `json:"error,omitempty"` // "": none
	Is    []string `json:"is,omitempty"`    // what the error matches
	View  *View    `json:"view,omitempty"`
	Files []string `json:"files,omitempty"` // that it has open
	Alert string   `json:"alert,omitempty"` // not a result: an alert that has been delivered, see AlertText
}

// Matches tells whether the step's error is one of this library's or of the system's, by name.
func (r Result) Matches(name string) bool {
	for _, one := range r.Is {
		if one == name {
			return true
		}
	}
	return false
}

// known are the errors that a result names.
func known() map[string]error {
	return map[string]error{
		"ErrNotSaved": quota.ErrNotSaved, "ErrPending": quota.ErrPending, "ErrClosed": quota.ErrClosed, "ErrLocked": quota.ErrLocked,
		"ErrExceeded": quota.ErrExceeded, "ErrCorruptState": quota.ErrCorruptState, "ErrConflict": quota.ErrConflict,
		"ErrSettled": quota.ErrSettled, "ErrNoReservation": quota.ErrNoReservation, "ErrIDConflict": quota.ErrIDConflict,
		"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EDQUOT": syscall.EDQUOT, "EROFS": syscall.EROFS, "EACCES": syscall.EACCES,
		"EMFILE": syscall.EMFILE, "EBUSY": syscall.EBUSY, "EXDEV": syscall.EXDEV,
	}
}

func resultOf(err error) Result {
	if err == nil {
		return Result{}
	}
	result := Result{Error: err.Error()}
	for name, one := range known() {
		if errors.Is(err, one) {
			result.Is = append(result.Is, name)
		}
	}
	return result
}

// Quotas is what every tracker on a victim's state is configured with. Lowered: after a Configure.
func Quotas(lowered bool) []quota.Quota {
	alpha := int64(alphaRequests)
	if lowered {
		alpha = alphaLowered
	}
	return []quota.Quota{
		{Name: "alpha", Limits: []quota.Limit{{Max: alpha}, {Unit: quota.UnitTokens, Max: alphaTokens}}},
		{Name: "beta", Limits: []quota.Limit{
			{Unit: quota.UnitTokens, Max: betaTokens, Window: quota.Lifetime()}, {Max: betaAtOnce, Window: quota.InFlight()},
		}},
		{Name: "user:*", Limits: []quota.Limit{{Max: userRequests}}},
		{Name: "visitor", Limits: []quota.Limit{{Max: 1e6, Window: quota.Lifetime(), NoAlerts: true}}},
		{Name: "probe", Limits: []quota.Limit{{Max: 1e6, Window: quota.Lifetime(), NoAlerts: true}}},
	}
}

const (
	alphaRequests = 100
	alphaLowered  = 60
	alphaTokens   = 10_000
	betaTokens    = 5_000
	betaAtOnce    = 40
	userRequests  = 60
	holdsFor      = 2 * time.Hour // the TTL of a reservation
)

// AlertText is how alerts are told apart: the crossing, and its ID.
func AlertText(a quota.Alert) string {
	return alertKey(a.Quota+"/"+a.Limit.String(), int64(a.Threshold), a.WindowStart) + " | " + a.ID
}
