package hostile

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/torture/harness"
)

func TestRow(t *testing.T) {
	run := &harness.Run{Seed: 7, Dir: t.TempDir()}
	for number := range uint64(12) {
		l := draw(t.TempDir(), run.Random(number))
		require.NoError(t, guard(func() error { return l.run(t.Context()) }), fmt.Sprint(number, " ", l))
	}
}

func TestTheLedgerSeesWhatIsMissingAndWhatIsTooMuch(t *testing.T) {
	for name, known := range map[string]func(*ledger){
		"usage lost":      func(l *ledger) { l.used(usage, 3, true) },
		"a hold lost":     func(l *ledger) { l.held(held, 1) },
		"a hold too much": func(l *ledger) { l.used(tight, 0, true) },
	} {
		tracker, err := quota.New(t.Context(), quota.Config{Persistence: quota.InMemory(), Quotas: quotas()})
		require.NoError(t, err)
		_, err = tracker.Reserve(t.Context(), tight)
		require.NoError(t, err)
		var l ledger
		known(&l)
		require.Error(t, l.compare(tracker), name)
		require.NoError(t, tracker.Close())
	}
}
