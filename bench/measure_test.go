package main

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMedianIsTheMiddleOrTheMeanOfTheTwo(t *testing.T) {
	require.Equal(t, stat{}, summarize(nil))
	require.Equal(t, stat{2, 2, 2}, summarize([]float64{2}))
	require.Equal(t, stat{3, 1, 9}, summarize([]float64{9, 1, 3}))
	require.Equal(t, stat{2.5, 1, 9}, summarize([]float64{9, 2, 1, 3}))
}

func TestRatioIsThatOfTheMediansBetweenThoseOfTheRounds(t *testing.T) {
	require.Equal(t, stat{0.5, 0.25, 1}, ratio([]float64{1, 2, 4}, []float64{4, 8, 4}))
}

func TestPercentileIsAValueThatTheShareDoesNotPass(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = 100 - i
	}
	require.Equal(t, 99, percentile(hundred, 0.99))
	require.Equal(t, 100, percentile(hundred, 1))
	require.Equal(t, 1, percentile(hundred, 0))
	require.Equal(t, 7, percentile([]int{7}, 0.99))
}

func TestSidesTakeTurnsInAnOrderThatRotates(t *testing.T) {
	var order string
	sideOf := func(name string, ns int) side {
		return side{name: name, run: func(time.Duration) (effort, error) {
			order += name
			return effort{ops: 2, elapsed: time.Duration(2 * ns), figures: map[string]float64{"f": float64(ns)}}, nil
		}}
	}
	found, err := compare(pace{rounds: 3}, sideOf("a", 10), sideOf("b", 20), sideOf("c", 30))
	require.NoError(t, err)
	require.Equal(t, "abc"+"abc"+"bca"+"cab", order, "the first three warm up")
	require.Equal(t, []float64{20, 20, 20}, found[1].perOp)
	require.Equal(t, []float64{20, 20, 20}, found[1].figures["f"])
	require.Equal(t, 6, found[1].ops)

	order = ""
	found, err = compare(pace{rounds: 1, slices: 2}, sideOf("a", 10), sideOf("b", 20))
	require.NoError(t, err)
	require.Equal(t, "ab"+"abba", order)
	require.Equal(t, []float64{10}, found[0].perOp)
	require.Equal(t, []float64{10}, found[0].figures["f"], "the mean of the slices")
	require.Equal(t, 4, found[0].ops)
}

func TestWhatDidNotHappenIsNoMeasurement(t *testing.T) {
	wrong := errors.New("wrong")
	ran := func(ops int, err error) side {
		return side{name: "it", run: func(time.Duration) (effort, error) { return effort{ops: ops, elapsed: 1}, err }}
	}
	_, err := compare(pace{rounds: 1}, ran(1, wrong))
	require.ErrorIs(t, err, wrong)
	_, err = compare(pace{rounds: 1}, ran(0, nil))
	require.ErrorContains(t, err, "nothing was done")

	value := int64(0)
	read := func() (int64, error) { return value, nil }
	moves := func(by int64) side {
		s := ran(3, nil)
		s.run = func(time.Duration) (effort, error) { value += by; return effort{ops: 3, elapsed: 1}, nil }
		return counted(s, "the value", 2, read)
	}
	_, err = compare(pace{rounds: 1}, moves(6))
	require.NoError(t, err)
	_, err = compare(pace{rounds: 1}, moves(5))
	require.ErrorContains(t, err, "3 operations moved the value by 5, not by 6")
}

func TestSidesOfSeveralGoroutinesAddUp(t *testing.T) {
	calls := make([]int, 3)
	s := parallel("it", 3, func(worker, n int) error { calls[worker] += n; return nil })
	done, err := s.run(0)
	require.NoError(t, err)
	require.Equal(t, []int{1, 1, 1}, calls, "each runs at least once")
	require.Equal(t, 3, done.ops)
	_, err = parallel("it", 3, func(worker, n int) error { return all(worker, 1, errDenied) }).run(0)
	require.ErrorIs(t, err, errDenied)
}

func TestKeysAreDifferentAndTheSameForTheSameSeed(t *testing.T) {
	keys := keysOf("user:", 1000, 1)
	seen := map[string]bool{}
	for _, key := range keys {
		seen[key] = true
	}
	require.Len(t, seen, 1000)
	require.Equal(t, keys, keysOf("user:", 1000, 1))
	require.NotEqual(t, keys, keysOf("user:", 1000, 2))

	first, second := draw(keys, 2, 1), draw(keys, 2, 1)
	drawnKeys := map[string]bool{}
	for range 10_000 {
		key := first.key(0)
		require.Equal(t, key, second.key(0))
		drawnKeys[key] = true
	}
	require.Greater(t, len(drawnKeys), 900)
}
