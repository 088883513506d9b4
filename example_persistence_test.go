package quota_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"example.com/quota"
)

// A keyValueStore stands for whatever keeps your data: Put replaces a value in one step and is durable on return, Get
// returns fs.ErrNotExist for what is not there.
type keyValueStore struct {
	mu     sync.Mutex
	values map[string][]byte
}

func (s *keyValueStore) Put(_ context.Context, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = map[string][]byte{}
	}
	s.values[key] = value
	return nil
}

func (s *keyValueStore) Get(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, found := s.values[key]
	if !found {
		return nil, fs.ErrNotExist
	}
	return value, nil
}

// A storePersistence keeps the state of one tracker under one key.
type storePersistence struct {
	store *keyValueStore
	key   string
}

func (p storePersistence) Load(ctx context.Context) (*quota.State, error) {
	data, err := p.store.Get(ctx, p.key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // nothing saved yet
	}
	if err != nil {
		return nil, err
	}
	state := new(quota.State)
	if err := json.Unmarshal(data, state); err != nil {
		return nil, err
	}
	return state, nil
}

func (p storePersistence) Save(ctx context.Context, s *quota.State) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return p.store.Put(ctx, p.key, data)
}

// A Persistence is two methods over whatever can replace a value in one step. Whether it is right, say
// quotatest.TestPersistence in a test of your own.
func ExamplePersistence() {
	ctx := context.Background()
	kept := storePersistence{new(keyValueStore), "quota"}
	quotas := []quota.Quota{{Name: "gemini_cli", Limits: []quota.Limit{{Max: 1500, Window: quota.Lifetime()}}}}
	for range 2 { // a program that is started twice
		tracker, err := quota.New(ctx, quota.Config{Persistence: kept, Quotas: quotas})
		if err != nil {
			fmt.Println(err)
			return
		}
		if err := tracker.RecordUsage(ctx, "gemini_cli", quota.Requests(100)); err != nil {
			fmt.Println(err)
		}
		status, _ := tracker.Status("gemini_cli")
		fmt.Println("used:", status.Limits[0].Used)
		if err := tracker.Close(); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// used: 100
	// used: 200
}
