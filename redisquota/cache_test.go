package redisquota

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func saved(revision string, bytes int) version {
	return version{revision: revision, data: make([]byte, bytes)}
}

func TestWhatIsNotInACompleteCacheIsAbsent(t *testing.T) {
	c := newCache()
	_, known := c.find("calls")
	require.False(t, known)
	c.deleted = "3.x"
	c.fill(5, map[string]version{"calls": saved("5.a", 1)})
	found, known := c.find("calls")
	require.True(t, known)
	require.Equal(t, "5.a", found.revision)
	found, known = c.find("others")
	require.True(t, known)
	require.Equal(t, absence("3.x"), found)
	c.put(6, map[string]version{"calls": absence("6.b")})
	c.deleted = "6.b"
	found, known = c.find("calls")
	require.True(t, known)
	require.Equal(t, absence("6.b"), found)
}

func TestAReplyThatWasOvertakenDoesNotMakeACompleteCacheOlder(t *testing.T) {
	c := newCache()
	c.fill(5, map[string]version{"calls": saved("5.a", 1)})
	c.put(4, map[string]version{"calls": saved("4.a", 1)})
	c.fill(4, map[string]version{"calls": saved("4.a", 1)})
	since, all := c.snapshot()
	require.EqualValues(t, 5, since)
	require.Equal(t, map[string]version{"calls": saved("5.a", 1)}, all)
}

func TestACacheThatHasForgottenABookIsNotComplete(t *testing.T) {
	for name, size := range map[string]struct{ books, bytes int }{"many": {mostCached + 1, 1}, "large": {3, mostCachedBytes / 2}} {
		c := newCache()
		c.fill(1, nil)
		for i := range size.books {
			c.put(2, map[string]version{fmt.Sprint(i): saved("2.a", size.bytes)})
		}
		require.LessOrEqual(t, c.recent.Len(), mostCached, name)
		require.LessOrEqual(t, c.bytes, mostCachedBytes, name)
		_, known := c.find("0")
		require.False(t, known, name)
		since, _ := c.snapshot()
		require.EqualValues(t, -1, since, name)
		c.put(1, map[string]version{"0": saved("1.a", 1)})
		_, known = c.find("0")
		require.True(t, known, name)
	}
}

func TestAReplyFromBeforeALossIsNotRemembered(t *testing.T) {
	s := &Store{cache: newCache(), opts: Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	now := time.Now()
	s.known = identity{"a", 9, "m"}
	before, after := &command{known: s.known}, &command{known: s.known}
	err := s.learn(before, &answer{status: "lost", identity: identity{"b", 1, "n"}, now: now}, now, now)
	require.ErrorIs(t, err, ErrLost)
	require.NoError(t, s.learn(after, &answer{
		status: "ok", identity: identity{"a", 10, "o"}, now: now, books: map[string]version{"calls": saved("10.o", 1)},
	}, now, now))
	require.Equal(t, identity{"b", 1, "n"}, s.known)
	_, known := s.cache.find("calls")
	require.False(t, known)
}
