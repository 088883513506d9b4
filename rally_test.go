package quota

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestASaveWaitsForThoseWhoComeAndNotForThoseWhoDoNot(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one after the other, each in its turn
	const many = 4 * quietRounds
	for _, took := range []time.Duration{0, time.Second} {
		for _, expected := range []int{0, 2, many / 2, 2 * many} {
			r := rally{expected: expected, took: took}
			r.wait() // nobody comes
			require.Zero(t, r.come.Load())
			come := make(chan struct{})
			go func() {
				defer close(come)
				for range many {
					r.come.Add(1)
					runtime.Gosched()
				}
			}()
			r.wait()
			if 0 < expected && expected <= many {
				require.InDelta(t, expected, r.come.Load(), quietRounds/2, "it does not wait for more than it expects")
			} else {
				require.EqualValues(t, many, r.come.Load(), "it waits for as long as they come")
			}
			<-come
		}
	}
}
