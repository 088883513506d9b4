package hostile

import (
	"regexp"
	"runtime"
	"time"

	"example.com/quota/torture/harness"
)

const (
	bound   = 30 * time.Second
	tooLong = 8 // seconds in a mutex; Close may take 5, and a second one waits for it
)

var waiting = regexp.MustCompile(`(?m)^goroutine (\d+) .*\[(sync\.(RW)?Mutex\.[^,\]]*|semacquire)`)

// guard runs f and finds out when it does not come to an end: after the bound, or as soon as a goroutine has not got a
// mutex for so long that whoever has it waits for something else.
func guard(f func() error) error {
	over := make(chan error, 1)
	go func() { over <- f() }()
	deadline := time.After(bound)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	since := map[string]int{}
	for {
		select {
		case err := <-over:
			return err
		case <-deadline:
			return harness.Violated("nothing is over after %v:\n%s", bound, stacks())
		case <-tick.C:
		}
		text := stacks()
		now := map[string]int{}
		for _, found := range waiting.FindAllStringSubmatch(text, -1) {
			id := found[1]
			if now[id] = since[id] + 1; now[id] >= tooLong {
				return harness.Violated("goroutine %s has waited for a mutex for %d seconds:\n%s", id, tooLong, text)
			}
		}
		since = now
	}
}

// stacks are those of every goroutine.
func stacks() string {
	buffer := make([]byte, 1<<20)
	return string(buffer[:runtime.Stack(buffer, true)])
}
