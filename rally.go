package quota

import (
	"runtime"
	"sync/atomic"
	"time"
)

// A rally lets callers that have just been told of a save add their next calls to the one that is about to start: without
// it every second save would find half of them.
type rally struct {
	come     atomic.Int64  // how many are there, looked at without a lock
	expected int           // how many there will be if all who were told come again; 0: nobody knows
	took     time.Duration // the save before
}

const (
	quietRounds = 128                    // rounds without a newcomer: together a small part of what a save takes
	longSave    = 500 * time.Microsecond // beside which a nap is short
)

// wait returns when as many have come as are expected, or when nobody has come for a while.
func (r *rally) wait() {
	naps := 2
	if r.expected < 2 || r.took < longSave {
		naps = 0
	}
	before := int64(-1)
	for same := 0; same < quietRounds; same++ {
		now := r.come.Load()
		switch {
		case r.expected > 0 && now >= int64(r.expected):
			return
		case now != before:
			before, same = now, 0
		case naps > 0 && same >= quietRounds/8:
			// Those that are missing may be in the hands of a thread that waits for this one's processor: a virtual machine
			// wakes it there although another is idle.
			nap()
			naps, same = naps-1, 0
		}
		runtime.Gosched()
	}
}
