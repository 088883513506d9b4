package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"example.com/quota"
)

// account is the quota whose usage is made durable.
const account = "claude"

func accounts() []quota.Quota { return []quota.Quota{{Name: account, Limits: threeLimits(huge)}} }

// fileWithHistory returns a state with 90 finished days of its account.
func (b *bench) fileWithHistory(dir string) (*quota.JSONFile, error) {
	file := quota.NewJSONFile(statePath(dir))
	err := file.Save(b.ctx, &quota.State{Books: map[string]*quota.Book{}, History: map[string][]quota.DaySummary{account: ninetyDays()}})
	return file, err
}

// ninetyDays are as many finished days as a tracker keeps.
func ninetyDays() []quota.DaySummary {
	today := time.Now().UTC().Truncate(24 * time.Hour)
	var days []quota.DaySummary
	for ago := 90; ago > 0; ago-- {
		days = append(days, quota.DaySummary{Quota: account, Day: today.AddDate(0, 0, -ago),
			Used:         map[quota.Unit]int64{quota.UnitRequests: 1500, quota.UnitTokens: 2_000_000, quota.UnitUSD: 3 * quota.Dollar},
			PeakReserved: map[quota.Unit]int64{quota.UnitRequests: 12}, Calls: 1500, Denied: 3,
			DeniedBy: map[string]int64{"requests per day": 3}, Alerts: []string{"50% of requests per day"}})
	}
	return days
}

func statePath(dir string) string { return filepath.Join(dir, "quota_state.json") }

// openDurable returns a tracker on a state with history, and its path.
func (b *bench) openDurable() (*quota.QuotaTracker, string, error) {
	dir, err := b.scratch()
	if err != nil {
		return nil, "", err
	}
	file, err := b.fileWithHistory(dir)
	if err != nil {
		return nil, "", err
	}
	t, err := b.tracker(file, accounts()...)
	if err != nil {
		return nil, "", err
	}
	if err := t.RecordUsage(b.ctx, account, quota.Tokens(7)); err != nil {
		return nil, "", errors.Join(err, t.Close())
	}
	if days := len(t.History(account)); days < 89 {
		return nil, "", errors.Join(fmt.Errorf("%d days of history, not 90", days), t.Close())
	}
	return t, dir, nil
}

// record is one caller of RecordUsage: three units, as a provider's answer reports them.
func (b *bench) record(t *quota.QuotaTracker) func(worker, n int) error {
	return func(_, n int) error {
		for range n {
			if err := t.RecordUsage(b.ctx, account, quota.Tokens(7), quota.PicoUSD(21)); err != nil {
				return err
			}
		}
		return nil
	}
}

// generation is how many saves a state has seen.
func (b *bench) generation(dir string) (float64, error) {
	state, err := quota.NewJSONFile(statePath(dir)).Load(b.ctx)
	if err != nil || state == nil {
		return 0, errors.Join(errors.New("no state"), err)
	}
	return float64(state.Generation), nil
}

// callers is a side of many goroutines that each repeat one durable call. It also tells the calls per save and the
// 99th percentile of the calls' time in saves.
func (b *bench) callers(t *quota.QuotaTracker, dir string, many int) side {
	record := b.record(t)
	s := side{name: "RecordUsage", run: func(budget time.Duration) (effort, error) {
		times, errs := make([][]time.Duration, many), make([]error, many)
		first, err := b.generation(dir)
		if err != nil {
			return effort{}, err
		}
		var group sync.WaitGroup
		start := time.Now()
		for i := range many {
			group.Go(func() {
				for at := start; ; {
					if errs[i] = record(i, 1); errs[i] != nil {
						return
					}
					now := time.Now()
					times[i] = append(times[i], now.Sub(at))
					if at = now; now.Sub(start) >= budget {
						return
					}
				}
			})
		}
		group.Wait()
		elapsed := time.Since(start)
		last, err := b.generation(dir)
		if err := errors.Join(append(errs, err)...); err != nil {
			return effort{}, err
		}
		all := slices.Concat(times...)
		saves := last - first
		return effort{ops: len(all), elapsed: elapsed, figures: map[string]float64{
			callsPerSave: float64(len(all)) / saves,
			tailInSaves:  float64(percentile(all, 0.99)) * saves / float64(elapsed),
			saveTime:     float64(elapsed) / saves,
		}}, nil
	}}
	return usedBy(s, t, account, tokensLimit, 7)
}

// The figures of callers.
const (
	callsPerSave = "calls per save"
	tailInSaves  = "99th percentile in saves"
	saveTime     = "time of a save"
)

// measureAlone is row 7.
func (b *bench) measureAlone() ([]finding, error) {
	t, dir, err := b.openDurable()
	if err != nil {
		return nil, err
	}
	defer b.shut(t)
	peers, closePeers, err := b.durablePeers(dir)
	if err != nil {
		return nil, err
	}
	defer closePeers()
	found, err := compare(b.durable(), b.callers(t, dir, 1),
		serial("bare disk cycle of the same bytes", peers.cycle.times),
		usedBy(serial("in memory", func(n int) error { return b.record(peers.forgetful)(0, n) }), peers.forgetful, account, tokensLimit, 7),
		counted(serial("bbolt Update", peers.update), "its counter", 1, peers.boltCount),
		counted(serial("SQLite", func(n int) error { return peers.addRow(0, n) }), "its counter", 1, peers.sqliteCount))
	if err != nil {
		return nil, err
	}
	const work = "durable RecordUsage, 1 caller, 90 days of history"
	b.say(7, "The state file has %s; each save of one caller is one cycle (%.2f calls per save).",
		bytesOf.text(float64(len(peers.cycle.data))), summarize(found[0].figures[callsPerSave]).median)
	return []finding{
		against(7, work, found[0], found[1]).want(atMost(1.2)),
		against(7, work, found[0], found[3]).lacks("a database, not a limiter: a counter is all it is asked to keep; one process at a time"),
		against(7, work, found[0], found[4]),
		against(7, work, found[0], found[2]),
	}, nil
}

// measureTogether is row 8.
func (b *bench) measureTogether() ([]finding, error) {
	const many = 64
	t, dir, err := b.openDurable()
	if err != nil {
		return nil, err
	}
	defer b.shut(t)
	peers, closePeers, err := b.durablePeers(dir)
	if err != nil {
		return nil, err
	}
	defer closePeers()
	var turn sync.Mutex
	found, err := compare(b.durable(), b.callers(t, dir, many),
		counted(parallel("bbolt Batch", many, peers.batch), "its counter", 1, peers.boltCount),
		counted(parallel("SQLite", many, peers.addRow), "its counter", 1, peers.sqliteCount),
		parallel("one save per call", many, func(_, n int) error {
			for range n {
				turn.Lock()
				err := peers.cycle.once()
				turn.Unlock()
				if err != nil {
					return err
				}
			}
			return nil
		}))
	if err != nil {
		return nil, err
	}
	b.say(8, "What bounds it is the disk: %d calls in each bare disk cycle, which took %s here, would make %s times bbolt's calls if they cost "+
		"no CPU at all. bbolt changes pages of its file in place and syncs them; a state that is one readable file is written anew "+
		"and replaced, which takes a sync of the file, a rename and a sync of the directory.",
		many, nanoseconds.text(summarize(found[3].perOp).median), trim(many*ratio(found[3].perSecond(), found[1].perSecond()).median))
	const work = "durable RecordUsage, 64 callers, 90 days of history"
	return []finding{
		rates(8, work, found[0], found[1]).want(atLeast(1.3)).lacks("a database, not a limiter: a counter is all it is asked to keep; one process at a time"),
		rates(8, work, found[0], found[2]).lacks("a database, not a limiter: a counter is all it is asked to keep"),
		rates(8, work, found[0], found[3]),
		alone(8, "calls per save, 64 callers", plain, found[0].figures[callsPerSave]).want(atLeast(60)),
	}, nil
}

// measureCallers is row 9.
func (b *bench) measureCallers() ([]finding, error) {
	t, dir, err := b.openDurable()
	if err != nil {
		return nil, err
	}
	defer b.shut(t)
	forgetful, err := b.tracker(quota.InMemory(), accounts()...)
	if err != nil {
		return nil, err
	}
	defer b.shut(forgetful)
	var findings []finding
	counts := []int{1, 4, 16, 64, 256, 1024, 4096}
	if b.quick {
		counts = []int{1, 16, 256}
	}
	p := b.durable()
	p.slices = 1 // nobody takes turns here, and a run's first save is not as full as the others
	for _, many := range counts {
		found, err := compare(p, b.callers(t, dir, many))
		if err != nil {
			return nil, err
		}
		// What the CPU allows: all callers can make their call and be woken while one save is on the disk.
		woken, err := compare(pace{rounds: 1, time: b.time / 2}, wakeAll(many),
			parallel("in memory", 1, b.record(forgetful)))
		if err != nil {
			return nil, err
		}
		one := found[0]
		busy := float64(many) * (woken[0].perOp[0] + woken[1].perOp[0])
		disk := b.floor.disk.median
		if disk == 0 {
			disk = summarize(one.figures[saveTime]).median
		}
		who := fmt.Sprintf("%d callers", many)
		if many == 1 {
			who = "1 caller"
		}
		line := alone(9, "calls per save, "+who, plain, one.figures[callsPerSave])
		if busy < disk || many <= 64 {
			line = line.want(atLeast(math.Round(0.9*float64(many)*100) / 100))
		}
		findings = append(findings, line,
			alone(9, "99th percentile, "+who, "saves", one.figures[tailInSaves]).want(atMost(3)),
			alone(9, "throughput, "+who, perSecond, one.perSecond()))
		b.say(9, "%s: a save took %s; waking them all and their calls in memory take the CPU %s.", who,
			nanoseconds.text(summarize(one.figures[saveTime]).median), nanoseconds.text(busy))
	}
	return findings, nil
}

// stateBytes is what the state file holds now.
func stateBytes(dir string) ([]byte, error) { return os.ReadFile(statePath(dir)) }
