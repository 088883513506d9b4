package pgquota_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/quota"
	"example.com/quota/internal/offset"
	"example.com/quota/internal/storetest"
	"example.com/quota/pgquota"
	"example.com/quota/pgquota/internal/pgtest"
)

// subject is a Store, to be tried by fleets of processes.
var subject = storetest.Subject{
	Timed: true, Network: true,
	Open: func(ctx context.Context, place storetest.Place) (quota.Persistence, func(), error) {
		host, port, err := net.SplitHostPort(place.Address)
		if place.Network() == "unix" {
			host, port, err = filepath.Dir(place.Address), "5432", nil
		}
		if err != nil {
			return nil, nil, err
		}
		connections, err := pgxpool.New(ctx, fmt.Sprintf("host=%s port=%s user=%s dbname=postgres sslmode=disable", host, port, pgtest.Superuser))
		if err != nil {
			return nil, nil, err
		}
		store, err := pgquota.New(offset.With(ctx, place.Ahead), connections, pgquota.Options{Schema: place.Name, Logger: quiet()})
		return store, connections.Close, err
	},
	Start: func(tb testing.TB) storetest.Server {
		server := pgtest.Start(tb)
		return storetest.Server{Address: server.Socket(), Restart: server.CrashAndRestart}
	},
}

func TestFleet(t *testing.T) { storetest.TestFleet(t, subject) }

func TestSequences(t *testing.T) {
	t.Parallel()
	storetest.TestSequences(t, subject)
}
