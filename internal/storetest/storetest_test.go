package storetest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"example.com/quota"
)

var files = Subject{
	Open: func(_ context.Context, place Place) (quota.Persistence, func(), error) {
		return quota.NewJSONFile(filepath.Join(place.Address, place.Name+"_state.json")), nil, nil
	},
	Start: func(tb testing.TB) Server { return Server{Address: tb.TempDir()} },
}

func TestMain(m *testing.M) {
	Process(files)
	os.Exit(m.Run())
}

func TestFleetOnFiles(t *testing.T) { TestFleet(t, files) }

func TestSequencesOnFiles(t *testing.T) { TestSequences(t, files) }
