package redisquota

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheClockIsSetByRepliesAndRunsBackOnlyWithTheServer(t *testing.T) {
	begin := time.Now()
	server := time.Date(2026, time.January, 5, 9, 0, 0, 0, time.UTC)
	// Of a server whose clock shows server when that of this machine shows begin: a reply that left at its middle.
	reply := func(c *storeClock, sent, left, received, ahead time.Duration) {
		c.learn(server.Add(left+ahead), begin.Add(sent), begin.Add(received))
	}
	shows := func(c *storeClock, at time.Duration) time.Duration {
		return c.told.Add(begin.Add(at).Sub(c.at)).Sub(server)
	}
	const ms = time.Millisecond

	var c storeClock
	reply(&c, 0, 1*ms, 2*ms, 0)
	require.Equal(t, 9*ms, shows(&c, 10*ms), "behind by what the reply was on its way")
	reply(&c, 10*ms, 11*ms, 30*ms, 0)
	require.Equal(t, 29*ms, shows(&c, 30*ms), "a slower reply does not turn it back")
	reply(&c, 40*ms, 41*ms, 41*ms, 0)
	require.Equal(t, 50*ms, shows(&c, 50*ms), "a faster one makes it better")
	reply(&c, 50*ms, 51*ms, 52*ms, time.Hour)
	require.Equal(t, time.Hour+59*ms, shows(&c, 60*ms), "the server's has been set forward, or this machine has slept")
	reply(&c, 60*ms, 61*ms, 62*ms, 0)
	require.Equal(t, 69*ms, shows(&c, 70*ms), "and back")
}

func TestTimesGoToTheServerAsTheNextWholeMicrosecond(t *testing.T) {
	require.Equal(t, "1000000", micros(time.Unix(1, 0)))
	require.Equal(t, "1000001", micros(time.Unix(1, 1)))
	require.Equal(t, "1000001", micros(time.Unix(1, 1000)))
}
