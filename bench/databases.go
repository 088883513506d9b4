package main

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	"go.etcd.io/bbolt"
	_ "modernc.org/sqlite" // registers the driver

	"example.com/quota"
)

// durablePeers are what else makes a count durable, each as fast as it can be without promising less: a return means
// that a power cut undoes nothing.
type durablePeers struct {
	cycle     *diskCycle
	forgetful *quota.QuotaTracker
	bolt      *bbolt.DB
	sqlite    *sql.DB
	add       *sql.Stmt
}

// durablePeers opens them beside the state in dir, on the same disk.
func (b *bench) durablePeers(dir string) (p *durablePeers, closeAll func(), err error) {
	p = &durablePeers{}
	closeAll = func() {
		if p.cycle != nil {
			p.cycle.close()
		}
		if p.forgetful != nil {
			_ = p.forgetful.Close() // it keeps nothing
		}
		if p.bolt != nil {
			_ = p.bolt.Close() // what it holds is thrown away
		}
		if p.sqlite != nil {
			_ = p.sqlite.Close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	data, err := stateBytes(dir)
	if err != nil {
		return nil, nil, err
	}
	if p.cycle, err = newDiskCycle(dir, data); err != nil {
		return nil, nil, err
	}
	if p.forgetful, err = b.tracker(quota.InMemory(), accounts()...); err != nil {
		return nil, nil, err
	}
	if err := p.openBolt(filepath.Join(dir, "bolt.db")); err != nil {
		return nil, nil, fmt.Errorf("bbolt: %w", err)
	}
	if err := p.openSQLite(filepath.Join(dir, "sqlite.db")); err != nil {
		return nil, nil, fmt.Errorf("SQLite: %w", err)
	}
	return p, closeAll, nil
}

var usageBucket = []byte("usage")

func (p *durablePeers) openBolt(path string) (err error) {
	// The free list is not written with each commit but found again at the next start; the map is large from the start.
	p.bolt, err = bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
		InitialMmapSize: 16 << 20})
	if err != nil {
		return err
	}
	p.bolt.MaxBatchSize = 64
	return p.bolt.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(usageBucket)
		return err
	})
}

// boltAdd counts what record counts: a request, its tokens and its price.
func boltAdd(tx *bbolt.Tx) error {
	var sums [24]byte
	bucket := tx.Bucket(usageBucket)
	copy(sums[:], bucket.Get([]byte(account)))
	for i, n := range []uint64{1, 7, 21} {
		field := sums[8*i:]
		binary.BigEndian.PutUint64(field, binary.BigEndian.Uint64(field)+n)
	}
	return bucket.Put([]byte(account), sums[:])
}

func (p *durablePeers) update(n int) error {
	for range n {
		if err := p.bolt.Update(boltAdd); err != nil {
			return err
		}
	}
	return nil
}

func (p *durablePeers) batch(_, n int) error {
	for range n {
		if err := p.bolt.Batch(boltAdd); err != nil {
			return err
		}
	}
	return nil
}

func (p *durablePeers) boltCount() (count int64, err error) {
	err = p.bolt.View(func(tx *bbolt.Tx) error {
		if sums := tx.Bucket(usageBucket).Get([]byte(account)); sums != nil {
			count = int64(binary.BigEndian.Uint64(sums))
		}
		return nil
	})
	return count, err
}

func (p *durablePeers) openSQLite(path string) (err error) {
	options := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(10000)"}, "_txlock": {"immediate"}}
	if p.sqlite, err = sql.Open("sqlite", "file:"+filepath.ToSlash(path)+"?"+options.Encode()); err != nil {
		return err
	}
	p.sqlite.SetMaxOpenConns(1) // it has one writer at a time; a queue in Go is cheaper than its own retries
	if _, err = p.sqlite.Exec(`CREATE TABLE usage (name TEXT PRIMARY KEY, requests INTEGER, tokens INTEGER, usd INTEGER) WITHOUT ROWID`); err != nil {
		return err
	}
	if _, err = p.sqlite.Exec(`INSERT INTO usage VALUES (?, 0, 0, 0)`, account); err != nil {
		return err
	}
	var mode string
	var synchronous int
	if err := errors.Join(p.sqlite.QueryRow(`PRAGMA journal_mode`).Scan(&mode),
		p.sqlite.QueryRow(`PRAGMA synchronous`).Scan(&synchronous)); err != nil {
		return err
	}
	if mode != "wal" || synchronous != 2 {
		return fmt.Errorf("journal mode %s, synchronous %d: it does not run as it should", mode, synchronous)
	}
	p.add, err = p.sqlite.Prepare(`UPDATE usage SET requests = requests + 1, tokens = tokens + 7, usd = usd + 21 WHERE name = ?`)
	return err
}

func (p *durablePeers) addRow(_, n int) error {
	for range n {
		result, err := p.add.Exec(account)
		if err != nil {
			return err
		}
		if rows, err := result.RowsAffected(); err != nil || rows != 1 {
			return errors.Join(fmt.Errorf("%d rows changed", rows), err)
		}
	}
	return nil
}

func (p *durablePeers) sqliteCount() (count int64, err error) {
	err = p.sqlite.QueryRow(`SELECT requests FROM usage WHERE name = ?`, account).Scan(&count)
	return count, err
}
