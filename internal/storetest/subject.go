package storetest

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	"example.com/quota"
)

// A Subject is a kind of store that is tested: a quota.SharedPersistence.
type Subject struct {
	// Open opens the store at a place, which is new and empty when nobody has opened that place before. It is called in
	// several processes. ctx bounds Open alone. closeStore frees what Open took; nil: nothing is to be freed.
	Open func(ctx context.Context, place Place) (store quota.Persistence, closeStore func(), err error)
	// Start starts what the stores of one test are kept in, until the test ends: a server, or a directory.
	Start func(tb testing.TB) Server
	// Timed says that the store has a time of its own (Tx.Now), and heeds Place.Ahead.
	Timed bool
	// Network says that Server.Address is where a server listens, so that a Proxy can stand before it, and that it can be
	// restarted.
	Network bool
}

// A Server is where stores are kept.
type Server struct {
	// Address is what Place.Address says. Of a server it is "host:port", or the path of a Unix socket.
	Address string
	// Restart ends the server without warning, and starts it again at the same address with what it had acknowledged. It
	// is called in a goroutine of its own. Nil where there is no server.
	Restart func() error
}

// A Place says where a store is.
type Place struct {
	// Address is that of the Server, or of a Proxy before it ("127.0.0.1:port").
	Address string
	// Name tells the stores of a server apart: at most 40 of a-z, 0-9 and _, and a letter first.
	Name string
	// Ahead is by how much the store's time is ahead of its server's, asked anew each time; nil: it is the server's. A
	// store without a time of its own has no use for it.
	Ahead func() time.Duration
}

// Network is that of Address: "tcp" or "unix".
func (p Place) Network() string { return network(p.Address) }

// Numbers say how much is tried.
type Numbers struct {
	Processes, Callers int   // of a fleet, and of each process
	Requests           int64 // that the hot quota of a fleet admits
	Kills, Restarts    int
	Sequences          int // of operations
	Operations         int // of each sequence
}

const (
	fullVariable = "QUOTA_STORETEST"      // "full": as much as Full says
	seedVariable = "QUOTA_STORETEST_SEED" // of random numbers
	quickSeed    = 20261127
)

// Quick is what every run of the tests tries.
func Quick() Numbers {
	return Numbers{Processes: 8, Callers: 4, Requests: 240, Kills: 3, Restarts: 1, Sequences: 3, Operations: 100}
}

// Full is what is tried where the environment says QUOTA_STORETEST=full: it takes long.
func Full() Numbers {
	return Numbers{Processes: 8, Callers: 16, Requests: 100_000, Kills: 60, Restarts: 10, Sequences: 1000, Operations: 1000}
}

func numbers() Numbers {
	if os.Getenv(fullVariable) == "full" {
		return Full()
	}
	return Quick()
}

// newSeed returns the seed that QUOTA_STORETEST_SEED names, to try the same again. Else what is tried quickly is the same each
// time, so that what fails there a change has broken, and at the full numbers it is new.
func newSeed(tb testing.TB) uint64 {
	tb.Helper()
	text := os.Getenv(seedVariable)
	switch {
	case text == "" && os.Getenv(fullVariable) == "full":
		return uint64(time.Now().UnixNano())
	case text == "":
		return quickSeed
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		tb.Fatalf("storetest: %s: %v", seedVariable, err)
	}
	return seed
}
