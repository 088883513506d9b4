package quota

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the two halves of group commit do where no call can be made to arrive at the right moment.

func TestABatchAfterTheLastSaveSaysThatNothingIsSaved(t *testing.T) {
	t.Parallel()
	batch := (&saver{over: true}).take(nil, nil)
	<-batch.done
	require.ErrorIs(t, batch.err, ErrClosed)
}

func TestABatchThatIsSavedWinsOverAContextThatHasEnded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wrong := errors.New("disk full")
	batch := &saveBatch{done: make(chan struct{}), err: wrong}
	close(batch.done)
	for range 100 { // select takes either
		require.Equal(t, wrong, (&saver{}).wait(ctx, batch))
	}
}

func TestWaitersGoInTheOrderInWhichTheyCameAndOthersKeepTheirPlaces(t *testing.T) {
	t.Parallel()
	other, plain := &call{op: &rereading{}}, &call{op: &acquisition{}}
	waiting := make([]*call, 4)
	for i := range waiting {
		waiting[i] = &call{op: &acquisition{line: &waiter{ticket: uint64(i)}}}
	}
	calls := []*call{waiting[3], other, waiting[0], plain, waiting[2], waiting[1]}
	inLine(calls)
	for i, want := range []*call{waiting[0], other, waiting[1], plain, waiting[2], waiting[3]} {
		require.Same(t, want, calls[i], i)
	}
}

func TestACallerThatDoesNotWaitIsToldWhatBecomesOfItsCall(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var s shared
	err := s.left(ctx, &acquisition{})
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrPending)
	require.ErrorContains(t, err, "reserving")
	require.ErrorIs(t, s.left(ctx, &settling{}), ErrPending)
	require.ErrorIs(t, s.left(ctx, &settling{}), context.Canceled)
	require.ErrorIs(t, s.left(ctx, &rereading{}), context.Canceled)
	require.ErrorContains(t, s.left(ctx, &searching{}), "quota: ")
	require.True(t, isRereading(&call{op: &rereading{}}))
	require.False(t, isRereading(&call{op: &settling{}}))
}

func TestACallAfterCloseIsRefusedAndLetsTheNextOneIn(t *testing.T) {
	t.Parallel()
	s := shared{closed: true}
	left := 0
	over, err := s.dispatch(t.Context(), &acquisition{leave: func() { left++ }})
	require.True(t, over)
	require.ErrorIs(t, err, ErrClosed)
	require.Equal(t, 1, left)
	over, err = s.dispatch(t.Context(), &rereading{})
	require.True(t, over)
	require.ErrorIs(t, err, ErrClosed)
}

func TestRestWaitsForTheUpdateOrForItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, (&shared{}).rest(ctx), "nothing runs")
	s := shared{running: true, idle: make(chan struct{})}
	require.ErrorIs(t, s.rest(ctx), context.Canceled)
	close(s.idle)
	require.NoError(t, s.rest(t.Context()))
}

func TestAnOperationThatIsKeptSharesNoResultWithItsCaller(t *testing.T) {
	t.Parallel()
	op := &settling{}
	require.NotSame(t, op, again(op))
	require.IsType(t, op, again(op))
	other := &rereading{}
	require.Same(t, other, again(other))
}

func TestAlertsOfAnUpdateWhoseOutcomeIsNotKnownAreNamedOnceAndInOrder(t *testing.T) {
	t.Parallel()
	names := insertNames([]string{"b"}, []string{"c", "a", "b", "a"})
	require.Equal(t, []string{"a", "b", "c"}, names)
}

func TestAfterCloseNothingIsSaved(t *testing.T) {
	t.Parallel()
	disarmed := 0
	disarm := func() bool { disarmed++; return true }
	s := &saver{cancel: func() {}, disarm: disarm}
	require.NoError(t, s.close(t.Context()))
	require.ErrorIs(t, s.take(nil, nil).err, ErrClosed)
	require.Equal(t, 1, disarmed)

	u := &shared{cancel: func() {}, disarm: disarm}
	require.NoError(t, u.close(t.Context()))
	_, err := u.dispatch(t.Context(), &rereading{})
	require.ErrorIs(t, err, ErrClosed)
	require.Equal(t, 2, disarmed)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	u = &shared{cancel: func() {}, running: true, idle: make(chan struct{})}
	require.ErrorIs(t, u.close(ctx), context.Canceled, "an update that does not end")
}

func TestAnEntryIsSavedOnceAndItsCallersAreCounted(t *testing.T) {
	t.Parallel()
	s := &saver{tracker: &QuotaTracker{}, running: true}
	e := &entry{}
	s.note(e)
	s.note(e)
	require.Len(t, s.dirty, 1)
	require.Same(t, s.begin(), s.begin())
	require.Equal(t, 2, s.upcoming.callers)
}

func TestAnUpdateTellsItsCallersAndWhetherAnyIsThere(t *testing.T) {
	t.Parallel()
	var s shared
	for _, abandoned := range [][]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
		calls := make([]*call, len(abandoned))
		for i := range calls {
			calls[i] = &call{op: &rereading{}, done: make(chan struct{}), abandoned: abandoned[i]}
		}
		require.Equal(t, abandoned[0] && abandoned[1], s.finish(calls, true))
		for _, c := range calls {
			<-c.done
			require.True(t, c.finished)
		}
	}
}
