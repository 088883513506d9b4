package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"example.com/quota/redisquota"
)

const (
	manyCallers   = 64
	manyProcesses = 8
	fleetCallers  = 16 // of each process
)

// measureRedis is row 15.
func (b *bench) measureRedis() ([]finding, error) {
	s, address, err := b.startRedis("everysec")
	if b.without(15, err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer s.stop()
	b.say(15, "%s with an append-only file, appendfsync everysec (its default), on the loopback.", b.redisVersion(address))
	lines, err := b.onRedis(address)
	if err != nil {
		return nil, err
	}
	several, err := b.fleets(address)
	if err != nil {
		return nil, err
	}
	synced, err := b.onSyncedRedis()
	return append(append(lines, several...), synced...), err
}

// members opens one of each, and returns what closes them.
func (b *bench) members(address string, callers int, who ...string) (all []*member, closeAll func(), err error) {
	closeAll = func() {
		for _, m := range all {
			if err := m.close(); err != nil {
				b.broken = append(b.broken, err.Error())
			}
		}
	}
	for i, name := range who {
		m, err := fleet{address, fmt.Sprintf("one-%d", i), 1}.join(b, name, callers)
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, m)
	}
	return all, closeAll, nil
}

func (m *member) granted(name string) side {
	s := deciding(name, m.wire, manyCallers, m.steps...)
	if m.tracker != nil {
		s = usedBy(s, m.tracker, account, tokensLimit, tokensPerDecision)
	}
	return s
}

func (m *member) denied(name string) side {
	s := deciding(name, m.wire, manyCallers, m.refused)
	if m.tracker != nil {
		names := []string{usedUpQuota}
		s = counted(s, "refusals", 1, func() (int64, error) { return denials(m.tracker, names), nil })
	}
	return s
}

const lacksOnRedis = "one token of one key; nothing is held, settled, alerted or reported"

// onRedis measures one process.
func (b *bench) onRedis(address string) ([]finding, error) {
	who := []string{oursOnRedis, oursAged, plainRate, pipedRate}
	all, closeAll, err := b.members(address, manyCallers, who...)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	sides := make([]side, len(all))
	for i, m := range all {
		sides[i] = m.granted(who[i])
	}
	p := b.durable()
	p.time, p.slices = p.time/2, 2
	found, err := compare(p, sides...)
	if err != nil {
		return nil, err
	}
	const work = "Reserve + Commit on Redis, 1 process, 64 callers"
	lines := []finding{rates(15, work, found[0], found[2]).want(atLeast(5)).lacks(lacksOnRedis)}
	lines = append(lines, aside(15, work, found[0], found[2])...)
	lines = append(lines, rates(15, work+", 90 days of history", found[1], found[2]), rates(15, work, found[0], found[3]))
	b.sayBatch(15, found[0], tripsOfABatch)
	b.say(15, "redis_rate has one connection for each caller. The automatic pipeline is an experimental setting of go-redis, which "+
		"sends what waits over one connection; each decision is still a script of its own on the server.")
	refusals, err := compare(b.pace, all[0].denied(oursOnRedis), all[2].denied(plainRate))
	if err != nil {
		return nil, err
	}
	return append(lines, rates(15, "a denied Reserve on Redis, 1 process, 64 callers", refusals[0], refusals[1])), nil
}

// tripsOfABatch is how many round trips redisquota needs for a batch, when nobody else writes.
const tripsOfABatch = 1

// sayBatch says how many callers shared a batch that takes so many round trips.
func (b *bench) sayBatch(row int, s series, trips float64) {
	if each := summarize(s.figures[tripsPerDecision]).median; each > 0 {
		b.say(row, "Of 64 callers, %.1f share a batch of %.0f round trip(s), which took %s.", trips/each, trips,
			nanoseconds.text(summarize(s.perOp).median*trips/each))
	}
}

// onSyncedRedis measures one process on a server that syncs its file before it answers.
func (b *bench) onSyncedRedis() ([]finding, error) {
	s, address, err := b.startRedis("always")
	if err != nil {
		return nil, err
	}
	defer s.stop()
	all, closeAll, err := b.members(address, manyCallers, oursOnRedis, plainRate)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	p := b.durable()
	p.time, p.slices = p.time/2, 2
	found, err := compare(p, all[0].granted(oursOnRedis), all[1].granted(plainRate))
	if err != nil {
		return nil, err
	}
	b.say(15, "With appendfsync always the server syncs once for all commands that wait, so 64 callers of redis_rate share a sync as "+
		"those of a tracker share a batch, and the disk decides: a batch took %s, and 64 calls of redis_rate %s.",
		nanoseconds.text(manyCallers*summarize(found[0].perOp).median), nanoseconds.text(manyCallers*summarize(found[1].perOp).median))
	return []finding{rates(15, "Reserve + Commit on Redis, 1 process, 64 callers, appendfsync always", found[0], found[1])}, nil
}

// serveFleet is what one of several processes does.
func serveFleet(o order) (done answer, err error) {
	b := &bench{ctx: background()}
	m, err := o.Fleet.join(b, o.Who, o.Callers)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := awaitStart(); err != nil {
		return done, err
	}
	before := m.wire.trips.Load()
	effort, times, err := decide(o.Time, o.Callers, m.steps...)
	if err != nil {
		return done, err
	}
	done = answer{Ops: effort.ops, InTime: int(effort.figures[opsInTime]), Elapsed: effort.elapsed, Times: times, Trips: m.wire.trips.Load() - before}
	done.Granted, err = m.takeAll(o.Callers)
	return done, err
}

// takeAll takes of the bounded quota until each caller has been refused.
func (m *member) takeAll(callers int) (granted int, err error) {
	counts, errs := make([]int, callers), make([]error, callers)
	var group sync.WaitGroup
	for caller := range callers {
		group.Go(func() {
			for {
				ok, err := m.take()
				if errs[caller] = err; !ok || err != nil {
					return
				}
				counts[caller]++
			}
		})
	}
	group.Wait()
	for _, n := range counts {
		granted += n
	}
	return granted, errors.Join(errs...)
}

// sharedCalls is how many calls the processes of a fleet are admitted at the end of each run: a limit that binds.
const sharedCalls = 400

const fairShare = "least share of a process, of its fair share"

// fleets measures several processes.
func (b *bench) fleets(address string) ([]finding, error) {
	runs := 0
	crowd := func(who string, processes int) side {
		return side{name: who, run: func(budget time.Duration) (effort, error) {
			runs++
			f := fleet{address, fmt.Sprintf("several-%d", runs), sharedCalls}
			if b.quick {
				f.Bound = 20
			}
			orders := make([]order, processes)
			for i := range orders {
				orders[i] = order{Kind: "fleet", Who: who, Fleet: f, Callers: fleetCallers, Time: budget}
			}
			answers, err := together(b.ctx, nil, orders...)
			if err != nil {
				return effort{}, err
			}
			// What is counted are the decisions within the budget: it does not matter who ends last.
			total, granted, acknowledged, trips, least := effort{elapsed: budget}, 0, 0, int64(0), answers[0].InTime
			var times []time.Duration
			for _, one := range answers {
				total.ops += one.InTime
				acknowledged += one.Ops
				granted, trips, least = granted+one.Granted, trips+one.Trips, min(least, one.InTime)
				times = append(times, one.Times...)
			}
			if granted != f.Bound {
				return effort{}, fmt.Errorf("%d calls were admitted of a quota of %d", granted, f.Bound)
			}
			total.figures = figuresOf(times, trips)
			total.figures[fairShare] = float64(least*processes) / float64(total.ops)
			if who == oursOnRedis {
				err = f.verify(b, acknowledged)
			}
			return total, err
		}}
	}
	p := b.durable()
	p.time, p.slices = p.time*3/2, 1 // starting processes costs more than a slice, and the first conflicts are part of it
	found, err := compare(p, crowd(oursOnRedis, manyProcesses), crowd(plainRate, manyProcesses), crowd(oursOnRedis, 1))
	if err != nil {
		return nil, err
	}
	const work = "Reserve + Commit on Redis, 8 processes x 16 callers"
	lines := []finding{
		rates(15, work, found[0], found[1]).want(atLeast(1)),
		rates(15, work+", beside 1 process x 16 callers", found[0], renamed(found[2], "quota, 1 process x 16 callers")),
		alone(15, fairShare+", 8 processes", plain, found[0].figures[fairShare]).want(atLeast(1.0 / 3)),
	}
	one := summarize(found[2].perSecond()).median
	b.say(15, "What bounds eight processes: of one book only one decides at a time, and every batch writes the holds that the others have open. "+
		"One process alone with its 16 callers decided %s; eight in turns came to %.2f of that.",
		perSecond.text(one), summarize(found[0].perSecond()).median/one)
	b.say(15, "At the end of each run the processes use up a quota of %d calls: exactly as many were admitted each time.", sharedCalls)
	return append(lines, aside(15, work, found[0], found[1])...), nil
}

func renamed(s series, name string) series {
	s.name = name
	return s
}

// verify fails if anybody who opens the state does not find what the processes were told.
func (f fleet) verify(b *bench, decisions int) error {
	client := redisClient(f.Address, &wire{}, 1)
	defer func() { _ = client.Close() }() // it has only read
	store, err := redisquota.New(b.ctx, client, redisquota.Options{Namespace: f.Namespace})
	if err != nil {
		return err
	}
	t, err := b.tracker(store, f.quotas()...)
	if err != nil {
		return err
	}
	defer b.shut(t)
	for _, one := range []struct {
		name  string
		limit int
		want  int
	}{{account, tokensLimit, tokensPerDecision * decisions}, {boundedQuota, 0, f.Bound}} {
		if n, err := used(t, one.name, one.limit); err != nil || n != int64(one.want) {
			return errors.Join(fmt.Errorf("the state counts %d of %q, %d were acknowledged", n, one.name, one.want), err)
		}
	}
	return nil
}
