package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/quota"
	"example.com/quota/pgquota"
)

// What the pools hold. A tracker uses one connection at a time. Of one row only one UPDATE runs at a time, and a few
// connections were the fastest of 1 to 64: one transaction is committed while the next waits for its lock on the server.
const (
	ourConnections   = 2
	theirConnections = 4
)

// measurePostgres is row 16.
func (b *bench) measurePostgres() ([]finding, error) {
	s, dsn, err := b.startPostgres()
	if b.without(16, err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer s.stop()
	theirWire := &wire{}
	theirs, err := pool(b.ctx, dsn, theirWire, theirConnections)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	if err := makeCounters(b.ctx, theirs); err != nil {
		return nil, err
	}
	young, closeYoung, err := b.onPostgres(dsn, "young", false)
	if err != nil {
		return nil, err
	}
	defer closeYoung()
	old, closeOld, err := b.onPostgres(dsn, "old", true)
	if err != nil {
		return nil, err
	}
	defer closeOld()
	granted := func(name string, m *member) side {
		return usedBy(deciding(name, m.wire, manyCallers, m.steps...), m.tracker, account, tokensLimit, tokensPerDecision)
	}
	const peer = "conditional UPDATE"
	found, err := compare(b.durable(), granted("quota", young), granted("quota, 90 days of history", old),
		counted(deciding(peer, theirWire, manyCallers, add(b.ctx, theirs, account, 1, errDenied)), "the counter", amountAdded,
			func() (n int64, err error) {
				return n, theirs.QueryRow(b.ctx, "SELECT used FROM counters WHERE name = $1", account).Scan(&n)
			}))
	if err != nil {
		return nil, err
	}
	refusals, err := compare(b.pace, deciding("quota", young.wire, manyCallers, young.refused),
		deciding(peer, theirWire, manyCallers, add(b.ctx, theirs, usedUpQuota, 0, errAdmitted)))
	if err != nil {
		return nil, err
	}
	var version string
	if err := theirs.QueryRow(b.ctx, "SHOW server_version").Scan(&version); err != nil {
		return nil, err
	}
	b.say(16, "PostgreSQL %s as initdb sets it up (fsync, synchronous_commit and full_page_writes on), on the loopback. The UPDATE is a "+
		"prepared statement over %d connections.", version, theirConnections)
	const work = "Reserve + Commit on PostgreSQL, 64 callers"
	b.sayBatch(16, found[0], tripsOfATransaction)
	lines := []finding{rates(16, work, found[0], found[2]).want(atLeast(10)).lacks("one counter; nothing is held, settled, alerted or reported, and no window turns")}
	lines = append(lines, aside(16, work, found[0], found[2])...)
	return append(lines, rates(16, work+", 90 days of history", found[1], found[2]),
		rates(16, "a denied Reserve on PostgreSQL, 64 callers", refusals[0], refusals[1])), nil
}

// tripsOfATransaction is how many round trips pgquota needs for a batch: to lock and read, to write and commit.
const tripsOfATransaction = 2

// onPostgres opens a tracker in a schema of its own.
func (b *bench) onPostgres(dsn, schema string, aged bool) (m *member, closeAll func(), err error) {
	m = &member{wire: &wire{}}
	connections, err := pool(b.ctx, dsn, m.wire, ourConnections)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			connections.Close()
		}
	}()
	store, err := pgquota.New(b.ctx, connections, pgquota.Options{Schema: schema, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	if aged {
		if err := b.saveHistory(store); err != nil {
			return nil, nil, err
		}
	}
	t, err := b.tracker(store, quota.Quota{Name: account, Limits: threeLimits(huge)}, quota.Quota{Name: usedUpQuota, Limits: threeLimits(1)})
	if err != nil {
		return nil, nil, err
	}
	if err := t.RecordUsage(b.ctx, usedUpQuota, quota.Tokens(1)); err != nil {
		return nil, nil, errors.Join(err, t.Close())
	}
	m.tracker, m.steps, m.refused = t, reserveThenCommit(b.ctx, t, manyCallers), refusedBy(b.ctx, t, usedUpQuota)
	return m, func() {
		b.shut(t)
		connections.Close()
	}, nil
}

// makeCounters makes what the peer counts with. Half of each page stays free for new versions of its rows, as in our tables.
func makeCounters(ctx context.Context, p *pgxpool.Pool) error {
	for _, sql := range []string{
		"CREATE TABLE counters (name text PRIMARY KEY, used bigint NOT NULL, max bigint NOT NULL) WITH (fillfactor = 50)",
		"INSERT INTO counters VALUES ('" + account + "', 0, 1000000000000000), ('" + usedUpQuota + "', 1, 1)",
	} {
		if _, err := p.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

const amountAdded = 5

// add is a decision of the peer, of which so many rows must come.
func add(ctx context.Context, p *pgxpool.Pool, name string, rows int64, otherwise error) step {
	return func(int) error {
		tag, err := p.Exec(ctx, "UPDATE counters SET used = used + $1 WHERE name = $2 AND used + $1 <= max", int64(amountAdded), name)
		if err == nil && tag.RowsAffected() != rows {
			err = otherwise
		}
		return err
	}
}
