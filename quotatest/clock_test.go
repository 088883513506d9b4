package quotatest_test

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

var _ quota.Clock = (*quotatest.Clock)(nil)

var noon = time.Date(2026, time.March, 10, 12, 0, 0, 0, time.UTC)

// diary notes what ran and when the clock said it was.
type diary struct {
	clock   *quotatest.Clock
	entries []string
}

func (d *diary) note(what string) func() {
	return func() {
		d.entries = append(d.entries, what+" "+d.clock.Now().Format("15:04:05"))
	}
}

func newDiary() (*quotatest.Clock, *diary) {
	clock := quotatest.NewClock(noon)
	return clock, &diary{clock: clock}
}

func TestClockStandsStillUntilItIsMoved(t *testing.T) {
	clock := quotatest.NewClock(noon)
	require.Equal(t, noon, clock.Now())
	clock.Advance(90 * time.Second)
	require.Equal(t, noon.Add(90*time.Second), clock.Now())
	clock.Set(noon.Add(-time.Hour))
	require.Equal(t, noon.Add(-time.Hour), clock.Now())
	clock.Set(noon.AddDate(900, 0, 0))
	require.Equal(t, noon.AddDate(900, 0, 0), clock.Now())
}

func TestClockHasNoMonotonicReading(t *testing.T) {
	now := time.Now()
	clock := quotatest.NewClock(now)
	require.Equal(t, now.Round(0), clock.Now())
	clock.Set(now)
	require.Equal(t, now.Round(0), clock.Now())
}

func TestClockRunsWhatIsDueInOrderOfTimeThenOfPlanning(t *testing.T) {
	clock, diary := newDiary()
	clock.AfterFunc(3*time.Second, diary.note("third"))
	clock.AfterFunc(2*time.Second, diary.note("second"))
	clock.AfterFunc(time.Second, diary.note("first"))
	clock.AfterFunc(2*time.Second, diary.note("second again"))
	clock.AfterFunc(4*time.Second, diary.note("too late"))
	clock.Advance(3 * time.Second)
	require.Equal(t, []string{"first 12:00:01", "second 12:00:02", "second again 12:00:02", "third 12:00:03"}, diary.entries)
	require.Equal(t, noon.Add(3*time.Second), clock.Now())
}

func TestClockRunsEachPlannedFunctionOnce(t *testing.T) {
	clock, diary := newDiary()
	clock.AfterFunc(time.Second, diary.note("once"))
	clock.Advance(time.Second)
	clock.Advance(time.Hour)
	clock.Set(noon)
	clock.Advance(time.Hour)
	require.Equal(t, []string{"once 12:00:01"}, diary.entries)
}

func TestClockSetForwardRunsWhatIsDue(t *testing.T) {
	clock, diary := newDiary()
	clock.AfterFunc(time.Second, diary.note("due"))
	clock.AfterFunc(time.Minute, diary.note("not due"))
	clock.Set(noon.Add(30 * time.Second))
	require.Equal(t, []string{"due 12:00:01"}, diary.entries)
}

func TestClockSetForwardUsesTheNewLocation(t *testing.T) {
	clock, diary := newDiary()
	clock.AfterFunc(time.Second, diary.note("due"))
	clock.Set(noon.Add(time.Minute).In(time.FixedZone("", 3600)))
	require.Equal(t, []string{"due 13:00:01"}, diary.entries)
}

func TestClockRunsWhatItsFunctionsPlanInTheSameMove(t *testing.T) {
	clock, diary := newDiary()
	clock.AfterFunc(time.Second, func() {
		diary.note("parent")()
		clock.AfterFunc(2*time.Second, diary.note("child"))
		clock.AfterFunc(0, diary.note("at once"))
		clock.AfterFunc(-time.Hour, diary.note("overdue"))
		clock.AfterFunc(time.Hour, diary.note("later"))
	})
	clock.AfterFunc(2*time.Second, diary.note("sibling"))
	clock.Advance(3 * time.Second)
	require.Equal(t, []string{
		"parent 12:00:01", "at once 12:00:01", "overdue 12:00:01", "sibling 12:00:02", "child 12:00:03",
	}, diary.entries)
}

func TestClockKeepsWhatIsDueAtOnceForTheNextMove(t *testing.T) {
	clock, diary := newDiary()
	clock.AfterFunc(0, diary.note("now"))
	clock.AfterFunc(-time.Hour, diary.note("overdue"))
	require.Empty(t, diary.entries)
	clock.Advance(0)
	require.Equal(t, []string{"now 12:00:00", "overdue 12:00:00"}, diary.entries)
}

func TestClockStopKeepsAFunctionFromRunning(t *testing.T) {
	clock, diary := newDiary()
	stop := clock.AfterFunc(time.Second, diary.note("stopped"))
	ran := clock.AfterFunc(time.Second, diary.note("ran"))
	require.True(t, stop())
	require.False(t, stop(), "it had been stopped before")
	clock.Advance(time.Second)
	require.False(t, ran(), "it has run")
	require.Equal(t, []string{"ran 12:00:01"}, diary.entries)
}

func TestClockFunctionMayStopOthersAndNotItself(t *testing.T) {
	clock, diary := newDiary()
	var self, other func() bool
	var selfStopped, otherStopped bool
	self = clock.AfterFunc(time.Second, func() { selfStopped, otherStopped = self(), other() })
	other = clock.AfterFunc(time.Second, diary.note("other"))
	clock.Advance(time.Minute)
	require.False(t, selfStopped)
	require.True(t, otherStopped)
	require.Empty(t, diary.entries)
}

func TestClockSetBackKeepsTheRemainingDuration(t *testing.T) {
	clock, diary := newDiary()
	clock.AfterFunc(10*time.Minute, diary.note("planned"))
	clock.Advance(4 * time.Minute)
	clock.Set(noon.Add(-time.Hour))
	clock.Advance(6*time.Minute - 1)
	require.Empty(t, diary.entries)
	clock.Advance(1)
	require.Equal(t, []string{"planned 11:06:00"}, diary.entries)
}

func TestClockSetBackRunsWhatIsAlreadyDue(t *testing.T) {
	clock, diary := newDiary()
	clock.AfterFunc(0, diary.note("due"))
	clock.Set(noon.Add(-time.Hour))
	require.Equal(t, []string{"due 11:00:00"}, diary.entries)
}

func TestClockFunctionThatAdvancesExtendsTheMove(t *testing.T) {
	clock, diary := newDiary()
	clock.AfterFunc(time.Second, func() {
		clock.Advance(time.Minute)
		diary.note("advanced")()
	})
	clock.AfterFunc(65*time.Second, diary.note("reached"))
	clock.AfterFunc(66*time.Second, diary.note("not reached"))
	clock.Advance(5 * time.Second)
	require.Equal(t, []string{"advanced 12:00:01", "reached 12:01:05"}, diary.entries)
	require.Equal(t, noon.Add(65*time.Second), clock.Now())
}

func TestClockFunctionThatSetsTheClock(t *testing.T) {
	for name, test := range map[string]struct{ to, end time.Time }{
		"forward": {noon.Add(time.Hour + time.Second), noon.Add(time.Hour + 5*time.Second)},
		"back":    {noon.Add(-time.Hour), noon.Add(-time.Hour + 4*time.Second)},
	} {
		t.Run(name, func(t *testing.T) {
			clock, diary := newDiary()
			clock.AfterFunc(time.Second, func() { clock.Set(test.to) })
			clock.AfterFunc(3*time.Second, diary.note("planned"))
			clock.Advance(5 * time.Second)
			require.Equal(t, test.end, clock.Now())
			require.Len(t, diary.entries, 1)
		})
	}
}

func TestClockDoesNotAdvanceBackwards(t *testing.T) {
	clock := quotatest.NewClock(noon)
	require.PanicsWithValue(t, "quotatest: Clock.Advance cannot go back, use Clock.Set", func() { clock.Advance(-1) })
	require.Equal(t, noon, clock.Now())
	clock.Advance(time.Second)
	require.Equal(t, noon.Add(time.Second), clock.Now())
}

func TestClockHoldsNoLockThatOthersNeedWhileAFunctionRuns(t *testing.T) {
	clock := quotatest.NewClock(noon)
	var seen time.Time
	var stopped bool
	clock.AfterFunc(time.Second, func() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			seen = clock.Now()
			stopped = clock.AfterFunc(time.Hour, func() {})()
		}()
		<-done
	})
	clock.Advance(time.Minute)
	require.Equal(t, noon.Add(time.Second), seen)
	require.True(t, stopped)
}

func TestClockSurvivesAFunctionThatEndsTheGoroutine(t *testing.T) {
	clock, diary := newDiary()
	clock.AfterFunc(time.Second, runtime.Goexit)
	clock.AfterFunc(2*time.Second, func() { panic("planned") })
	clock.AfterFunc(3*time.Second, diary.note("still planned"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		clock.Advance(time.Minute)
	}()
	<-done
	require.Equal(t, noon.Add(time.Second), clock.Now())
	require.PanicsWithValue(t, "planned", func() { clock.Advance(time.Second) })
	clock.Advance(time.Second)
	require.Equal(t, []string{"still planned 12:00:03"}, diary.entries)
}

func TestClockMovesFromManyGoroutinesTakeTurns(t *testing.T) {
	const goroutines, moves = 8, 200
	clock := quotatest.NewClock(noon)
	var ran int // unguarded: planned functions run one at a time
	var running atomic.Int32
	var group sync.WaitGroup
	for range goroutines {
		group.Go(func() {
			for range moves {
				var done atomic.Bool
				clock.AfterFunc(time.Second, func() {
					if running.Add(1) != 1 {
						t.Error("two planned functions run at once")
					}
					runtime.Gosched()
					ran++
					running.Add(-1)
					done.Store(true)
				})
				clock.Advance(time.Second)
				if !done.Load() {
					t.Error("Advance returned before what it reached had run")
				}
			}
		})
	}
	group.Wait()
	require.Equal(t, goroutines*moves, ran)
	require.Equal(t, noon.Add(goroutines*moves*time.Second), clock.Now())
}
