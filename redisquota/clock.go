package redisquota

import (
	"strconv"
	"time"
)

// A storeClock tells the server's time between its replies: a moment that the server has told, and what has passed since
// on this machine's monotonic clock. It is behind the server's by what the reply was on its way, never ahead.
type storeClock struct {
	told time.Time // by the server
	at   time.Time // when its reply had come
}

func (c *storeClock) now() time.Time { return c.told.Add(time.Since(c.at)).Truncate(time.Microsecond) }

// learn takes over the time of a reply. What the clock has shown is kept as long as it can be right, so that it does not
// run back because one reply was slower than another.
func (c *storeClock) learn(told, sent, received time.Time) {
	shown := c.told.Add(received.Sub(c.at))
	if !c.at.IsZero() && !shown.Before(told) && !shown.After(told.Add(received.Sub(sent))) {
		return
	}
	c.told, c.at = told, received
}

// micros is a time as the scripts count it. What is between two microseconds belongs to the next.
func micros(t time.Time) string {
	us := t.UnixMicro()
	if t.Nanosecond()%1000 != 0 {
		us++
	}
	return strconv.FormatInt(us, 10)
}
