package damage

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/quota/torture/harness"
)

func TestTheFirstCasesHold(t *testing.T) {
	require.NoError(t, Row().Run(context.Background(), &harness.Run{Seed: 1, Cases: 300, Dir: t.TempDir()}))
}

func TestEveryBitAndEveryLengthIsACase(t *testing.T) {
	const text = "0123456789"
	seen := map[string]bool{}
	for _, one := range append(everyBit(state, text), everyLength(state, text)...) {
		all := files{state: text}
		one.change(all)
		require.NotEqual(t, text, all[state])
		seen[all[state]] = true
	}
	require.Len(t, seen, 8*len(text)+len(text))
}

func TestWhatIsSeenUnreportedMustBeTheWholeTruth(t *testing.T) {
	whole := &scene{
		files: files{state: "whole", backup: "before", history: "past"},
		truth: picture{"5", "days"}, old: picture{"4", "days"}, past: picture{"0", "days"}, fresh: picture{"0", "none"},
	}
	dir := t.TempDir()
	torn := files{state: "torn", backup: "before", history: "past"}
	one := damaged{what: "torn"}
	require.NoError(t, one.judge(whole.truth, "", dir, torn, whole))
	require.Error(t, one.judge(whole.old, "", dir, torn, whole), "an older state, unreported")
	require.ErrorContains(t, one.judge(whole.old, "recovered", dir, torn, whole), "not set aside")
	require.NoError(t, files{state + ".corrupt-1": "torn"}.put(dir))
	require.NoError(t, one.judge(whole.old, "recovered", dir, torn, whole))
	require.Error(t, one.judge(whole.past, "recovered", dir, torn, whole), "the .bak is whole")
	require.Error(t, one.judge(picture{"4", "none"}, "recovered", dir, torn, whole), "the finished days are whole")
	require.Error(t, one.strictly().judge(whole.old, "recovered", dir, torn, whole), "it is strict")
}
