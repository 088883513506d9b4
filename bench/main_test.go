package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain lets this test's binary be the child that some rows start.
func TestMain(m *testing.M) {
	if obey() {
		return
	}
	os.Exit(m.Run())
}

// TestEveryRowMeasuresWhatItSays runs each row as briefly as it can be; each checks for itself that what it measured
// happened.
func TestEveryRowMeasuresWhatItSays(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace.csv")
	require.NoError(t, os.WriteFile(trace, []byte("TIMESTAMP,ContextTokens,GeneratedTokens\n"+
		"2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 18:17:04.0419600,110,27\n"), 0o600))
	for _, r := range rows() {
		t.Run(r.title, func(t *testing.T) {
			b := &bench{pace: pace{rounds: 1, time: time.Nanosecond}, ctx: t.Context(), keys: 300, quick: true, seed: 1,
				trace: trace, dir: t.TempDir(), log: io.Discard}
			found, err := b.measure([]row{r})
			require.NoError(t, err)
			require.Empty(t, b.broken)
			require.Len(t, found.parts, 1)
			if notes := found.parts[0].notes; len(notes) > 0 && strings.HasPrefix(notes[0], "Left out") && os.Getenv("CI") == "" {
				t.Skip(notes[0])
			}
			require.NotEmpty(t, found.findings())
			for _, line := range found.findings() {
				require.Equal(t, r.number, line.row)
				require.Positive(t, line.ours.median, line.work)
				require.NotEmpty(t, line.work)
				if line.peer != "" {
					require.Positive(t, line.theirs.median, line.work)
					require.Positive(t, line.ratio.median, line.work)
				}
			}
		})
	}
}

func TestWithoutATraceTheHourOfTrafficIsLeftOutAndSaidSo(t *testing.T) {
	b := &bench{pace: pace{rounds: 1, time: time.Nanosecond}, ctx: t.Context(), trace: "nowhere.csv", dir: t.TempDir(), log: io.Discard}
	chosen, err := choose("13")
	require.NoError(t, err)
	found, err := b.measure(chosen[1:]) // without the floor
	require.NoError(t, err)
	require.Empty(t, found.findings())
	require.Contains(t, found.parts[0].notes[0], "Left out")
}

func TestATraceThatIsNoneIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.csv")
	for _, text := range []string{"", "a,b\n1,2\n", "a,b,c\n", "a,b,c\n1,x,3\n"} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := readTrace(path)
		require.Error(t, err, text)
	}
}

func TestGoalChoosesRows(t *testing.T) {
	numbers := func(list string) (all []int) {
		chosen, err := choose(list)
		require.NoError(t, err)
		for _, r := range chosen {
			all = append(all, r.number)
		}
		return all
	}
	require.Len(t, numbers(""), 17)
	require.Equal(t, []int{0, 2, 7}, numbers("7, 2"))
	for _, wrong := range []string{"99", "x", "1,", "-1"} {
		_, err := choose(wrong)
		require.Error(t, err, wrong)
	}
}

func TestWrongArgumentsAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-time", "0"}, {"-nonsense"}, {"more"}, {"-goal", "77"}} {
		_, err := run(context.Background(), args)
		require.Error(t, err, args)
	}
}
