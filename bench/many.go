package main

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	limiter "github.com/sethvargo/go-limiter"
	"github.com/sethvargo/go-limiter/memorystore"

	"example.com/quota"
)

// perUser gives each user a quota of the same size as the peer's bucket.
func perUser(most int64) quota.Quota {
	return quota.Quota{Name: "user:*", Limits: []quota.Limit{{Max: most, Window: quota.Every(time.Hour)}}}
}

// bucketStore has room for all keys from the start and does not sweep meanwhile.
func bucketStore(tokens uint64, keys int) (limiter.Store, error) {
	return memorystore.New(&memorystore.Config{Tokens: tokens, Interval: time.Hour, SweepInterval: 24 * time.Hour,
		SweepMinTTL: 24 * time.Hour, InitialAlloc: keys})
}

// measureManyKeys is row 4.
func (b *bench) measureManyKeys() ([]finding, error) {
	lines, err := b.takeAtRandom("room for all", b.keys, false)
	if err != nil {
		return nil, err
	}
	lines[0] = lines[0].want(atMost(1)).lacks("one token a call, one limit per key; its state is gone with the process")
	half, err := b.takeAtRandom("half of them full", b.keys/10, true)
	if err != nil {
		return nil, err
	}
	memory, err := b.compareResident()
	if err != nil {
		return nil, err
	}
	return append(append(lines, half...), memory), b.touchAtRandom(memory.ours.median, memory.theirs.median)
}

// takeAtRandom records on template quotas and takes from the peer, keys drawn at random from those that are there.
// With halfFull every second key has passed its limit: usage is recorded all the same, the peer takes nothing.
func (b *bench) takeAtRandom(what string, many int, halfFull bool) ([]finding, error) {
	names := keysOf("user:", many, b.seed)
	t, err := b.tracker(quota.InMemory(), perUser(huge))
	if err != nil {
		return nil, err
	}
	defer b.shut(t)
	store, err := bucketStore(huge, many)
	if err != nil {
		return nil, err
	}
	defer func() { _ = store.Close(b.ctx) }() // it only stops its sweeper
	for i, name := range names {
		first := int64(1)
		if halfFull && i%2 == 0 {
			first = huge
			if err := store.Set(b.ctx, name, 1, time.Hour); err != nil {
				return nil, err
			}
		}
		if err := t.RecordUsage(b.ctx, name, quota.Requests(first)); err != nil {
			return nil, err
		}
		if _, _, _, _, err := store.Take(b.ctx, name); err != nil {
			return nil, err
		}
	}
	var lines []finding
	for _, workers := range []int{1, 2} {
		ours, theirs := draw(names, workers, b.seed), draw(names, workers, b.seed)
		var recorded atomic.Int64
		before := callsOfAll(t)
		found, err := compare(b.pace,
			parallel("RecordUsage", workers, func(worker, n int) error {
				for range n {
					if err := t.RecordUsage(b.ctx, ours.key(worker)); err != nil {
						return err
					}
				}
				recorded.Add(int64(n))
				return nil
			}),
			parallel("go-limiter Take", workers, func(worker, n int) error {
				took := 0
				for range n {
					_, _, _, ok, err := store.Take(b.ctx, theirs.key(worker))
					if err != nil {
						return err
					}
					if ok {
						took++
					}
				}
				if halfFull {
					return aboutHalf(took, n)
				}
				return all(took, n, errDenied)
			}))
		if err != nil {
			return nil, err
		}
		if counts := callsOfAll(t) - before; counts != recorded.Load() {
			return nil, fmt.Errorf("%d calls recorded, but the quotas count %d", recorded.Load(), counts)
		}
		work := fmt.Sprintf("RecordUsage, %s template quotas at random, %s, %s", commas(many), what, goroutines(workers))
		lines = append(lines, against(4, work, found[0], found[1]))
	}
	return lines, nil
}

// A cacheLine is what the processor fetches at once.
type cacheLine [8]uint64

const cacheLineBytes = 64

// touchAtRandom finds keys in a map and writes to each cache line of so many bytes behind one, with no rule and no clock: once
// with as much as a quota takes and once with as much as the peer's bucket. It says what the memory alone takes.
func (b *bench) touchAtRandom(ours, theirs float64) error {
	names := keysOf("user:", b.keys, b.seed)
	lines := [2]int{int(math.Ceil(ours / cacheLineBytes)), int(math.Ceil(theirs / cacheLineBytes))}
	all := make(map[string][]cacheLine, len(names))
	for _, name := range names {
		all[name] = make([]cacheLine, max(lines[0], lines[1]))
	}
	keys := draw(names, 1, b.seed)
	touching := func(many int) side {
		return serial(fmt.Sprint(many), func(n int) error {
			for range n {
				value := all[keys.key(0)]
				for line := range many {
					value[line][0]++
				}
			}
			return nil
		})
	}
	found, err := compare(b.pace, touching(lines[0]), touching(lines[1]))
	if err != nil {
		return err
	}
	b.say(4, "What bounds it: a map that finds one of as many keys at random and changes the %d cache lines that a quota takes needs %s for that alone, "+
		"and %s for the %d that a bucket of the peer takes.", lines[0], nanoseconds.text(summarize(found[0].perOp).median),
		nanoseconds.text(summarize(found[1].perOp).median), lines[1])
	return nil
}

// callsOfAll adds up what every quota in memory has used.
func callsOfAll(t *quota.QuotaTracker) int64 {
	var sum int64
	for _, each := range t.Summary().Quotas {
		sum += each.Limits[0].Used
	}
	return sum
}

// compareResident fills both in processes of their own: in one heap neither's share could be told.
func (b *bench) compareResident() (finding, error) {
	line := finding{row: 4, work: "resident bytes per key, " + commas(b.keys) + " keys", peer: "go-limiter", unit: bytesOf}
	var sizes [2][]float64
	for round := range min(b.rounds, 3) {
		for k := range 2 {
			i := (k + round) % 2
			done, err := together(b.ctx, nil, order{Kind: "memory", Who: []string{"quota", "go-limiter"}[i], Count: b.keys})
			if err != nil {
				return line, err
			}
			sizes[i] = append(sizes[i], done[0].Bytes/float64(b.keys))
		}
	}
	line.ours, line.theirs, line.ratio = summarize(sizes[0]), summarize(sizes[1]), ratio(sizes[0], sizes[1])
	return line.want(atMost(4)), nil
}

// measureResident is the child's part: it makes each key, hands it over and forgets it, as a server does.
func measureResident(o order) (answer, error) {
	b := &bench{ctx: background()}
	if err := awaitStart(); err != nil {
		return answer{}, err
	}
	before, err := settledSize()
	if err != nil {
		return answer{}, err
	}
	t, err := b.tracker(quota.InMemory(), perUser(huge))
	if err != nil {
		return answer{}, err
	}
	defer b.shut(t)
	var store limiter.Store
	if o.Who != "quota" {
		if store, err = bucketStore(huge, o.Count); err != nil {
			return answer{}, err
		}
		defer func() { _ = store.Close(b.ctx) }() // it only stops its sweeper
	}
	for i := range o.Count {
		key := fmt.Sprintf("user:%x", uint64(i)*0x9E3779B97F4A7C15)
		if store == nil {
			err = t.RecordUsage(b.ctx, key)
		} else {
			_, _, _, _, err = store.Take(b.ctx, key)
		}
		if err != nil {
			return answer{}, err
		}
	}
	after, err := settledSize()
	if err == nil && store == nil && callsOfAll(t) != int64(o.Count) {
		err = errors.New("not every key has a quota")
	}
	runtime.KeepAlive(store)
	return answer{Ops: o.Count, Bytes: after - before}, err
}

// settledSize is the resident size once the garbage has gone back to the system.
func settledSize() (float64, error) {
	runtime.GC()
	debug.FreeOSMemory()
	return resident()
}

func commas(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", commas(n/1000), n%1000)
}
