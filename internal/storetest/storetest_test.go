package storetest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/quota"
)

var files = Subject{
	Open: func(_ context.Context, place Place) (quota.Persistence, func(), error) {
		return quota.NewJSONFile(filepath.Join(place.Address, place.Name+"_state.json")), nil, nil
	},
	Start: func(tb testing.TB) Server { return Server{Address: tb.TempDir()} },
}

// all opens what any of the tests here opens, by its address.
var all = Subject{Open: func(ctx context.Context, place Place) (quota.Persistence, func(), error) {
	flaw, dir, flawed := strings.Cut(place.Address, "@")
	switch {
	case flawed:
		place.Address = dir
		store, closeStore, err := files.Open(ctx, place)
		return &flawedStore{SharedPersistence: store.(quota.SharedPersistence), flaw: flaw}, closeStore, err
	case network(place.Address) == "tcp":
		return toys.Open(ctx, place)
	}
	return files.Open(ctx, place)
}}

func TestMain(m *testing.M) {
	Process(all)
	os.Exit(m.Run())
}

func TestFleetOnFiles(t *testing.T) { TestFleet(t, files) }

func TestFleetOnAServer(t *testing.T) { testFleet(t, toys, few) }

func TestSequencesOnFiles(t *testing.T) { TestSequences(t, files) }

func TestSequencesOnAServer(t *testing.T) { TestSequences(t, toys) }
