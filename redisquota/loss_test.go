package redisquota_test

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/redisquota"
	"example.com/quota/redisquota/internal/redistest"
)

func TestLostDataIsReportedOnceAndWhatThereIsGoesOn(t *testing.T) {
	book := books(t, 3)
	server := redistest.Start(t)
	client := server.Client()
	for name, test := range map[string]struct {
		lose func(t *testing.T)
		says string
		left map[string]string
	}{
		"emptied": {
			func(t *testing.T) { require.NoError(t, client.FlushAll(t.Context()).Err()) },
			"is empty, generation 2 had been saved", nil,
		},
		"emptied, and begun anew": {
			func(t *testing.T) {
				require.NoError(t, client.FlushAll(t.Context()).Err())
				put(t, open(t, client, "loss"), "calls", book[2])
			},
			"is another data set, at generation 1", map[string]string{"calls": text(t, book[2])},
		},
		"emptied, and gone on for long": {
			func(t *testing.T) {
				require.NoError(t, client.FlushAll(t.Context()).Err())
				other := open(t, client, "loss")
				for range 200 {
					put(t, other, "calls", book[2])
				}
			},
			"is another data set, at generation 200", map[string]string{"calls": text(t, book[2])},
		},
		"gone back": {
			nil, "has gone back to generation 1, generation 2 had been saved", map[string]string{"calls": text(t, book[0])},
		},
		"gone back, and on": {
			func(t *testing.T) {
				for range 3 {
					put(t, open(t, client, "loss"), "calls", book[2])
				}
			},
			"what had been saved as generation 2 is not part of it", map[string]string{"calls": text(t, book[2])},
		},
		"gone back, and on as far": {
			func(t *testing.T) { put(t, open(t, client, "loss"), "calls", book[2]) },
			"what had been saved as generation 2 is not part of it", map[string]string{"calls": text(t, book[2])},
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, client.FlushAll(t.Context()).Err())
			log := &logBook{}
			store := open(t, client, "loss", withLog(log))
			put(t, store, "calls", book[0])
			first := dump(t, client, "loss")
			put(t, store, "calls", book[1])
			if strings.HasPrefix(name, "gone back") {
				restore(t, client, first)
			}
			if test.lose != nil {
				test.lose(t)
			}
			err := store.Update(t.Context(), []string{"calls"}, putting("calls", book[1]))
			require.ErrorIs(t, err, redisquota.ErrLost)
			require.ErrorIs(t, err, quota.ErrNotSaved)
			require.ErrorContains(t, err, test.says)
			require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), log.String())
			require.Contains(t, log.String(), "{quota:loss}")
			require.NoError(t, store.Update(t.Context(), []string{"calls"}, func(tx *quota.Tx) error {
				found := map[string]string{}
				for name, book := range tx.Books {
					found[name] = text(t, book)
				}
				if test.left == nil {
					test.left = map[string]string{}
				}
				require.Equal(t, test.left, found)
				tx.Books["more"] = book[0]
				delete(tx.Books, "more")
				return nil
			}))
			put(t, store, "calls", book[1])
			require.Equal(t, map[string]string{"calls": text(t, book[1])}, inStore(t, client, "loss"))
			require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), log.String())
		})
	}
}

func TestATrackerGoesOnAfterALossWithoutForgettingWhatItKeeps(t *testing.T) {
	client := redistest.Start(t).Client()
	tracker := start(t, open(t, client, "loss"))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(1)))
	require.NoError(t, client.FlushAll(t.Context()).Err())
	require.ErrorIs(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(2)), redisquota.ErrLost)
	require.NoError(t, tracker.Flush(t.Context()))
	require.Equal(t, stand{2, 0}, standOf(t, tracker, "calls"))
}

func TestAPartOfTheKeysThatIsMissingIsNotAFreshStart(t *testing.T) {
	client := redistest.Start(t).Client()
	for _, key := range []string{"books", "revisions", "meta"} {
		require.NoError(t, client.FlushAll(t.Context()).Err())
		store := open(t, client, "part")
		put(t, store, "calls", books(t, 1)[0])
		require.NoError(t, client.Del(t.Context(), "{quota:part}:"+key).Err())
		err := store.Update(t.Context(), []string{"calls"}, func(*quota.Tx) error { return nil })
		require.ErrorIs(t, err, quota.ErrNotSaved, key)
		if key != "meta" {
			require.ErrorIs(t, err, quota.ErrCorruptState, key)
			require.ErrorContains(t, err, "{quota:part}:")
		}
		_, err = redisquota.New(t.Context(), client, redisquota.Options{Namespace: "part"})
		require.ErrorIs(t, err, quota.ErrCorruptState, key)
	}
}

func TestABookThatCannotBeReadIsCorruptAndNotEmpty(t *testing.T) {
	client := redistest.Start(t).Client()
	for name, damage := range map[string]func(pipe redis.Pipeliner){
		"not JSON":      func(pipe redis.Pipeliner) { pipe.HSet(t.Context(), "{quota:bad}:books", "calls", `{"clock":`) },
		"not a book":    func(pipe redis.Pipeliner) { pipe.HSet(t.Context(), "{quota:bad}:books", "calls", `{"used":1}`) },
		"empty":         func(pipe redis.Pipeliner) { pipe.HSet(t.Context(), "{quota:bad}:books", "calls", "") },
		"of other type": func(pipe redis.Pipeliner) { pipe.Set(t.Context(), "{quota:bad}:books", "calls", 0) },
	} {
		require.NoError(t, client.FlushAll(t.Context()).Err())
		put(t, open(t, client, "bad"), "calls", books(t, 1)[0])
		pipe := client.Pipeline()
		damage(pipe)
		_, err := pipe.Exec(t.Context())
		require.NoError(t, err)
		if name == "of other type" {
			_, err := redisquota.New(t.Context(), client, redisquota.Options{Namespace: "bad"})
			require.ErrorIs(t, err, quota.ErrCorruptState, name)
			continue
		}
		store := open(t, client, "bad")
		_, err = store.Load(t.Context())
		require.ErrorIs(t, err, quota.ErrCorruptState, name)
		require.ErrorContains(t, err, "{quota:bad}:books")
		require.ErrorContains(t, err, `"calls"`)
		ran := false
		err = store.Update(t.Context(), []string{"calls"}, func(*quota.Tx) error { ran = true; return nil })
		require.ErrorIs(t, err, quota.ErrCorruptState, name)
		require.False(t, ran, name)
		put(t, store, "others", books(t, 1)[0])
	}
}
