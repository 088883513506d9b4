package alerts

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/quota/torture/harness"
)

func TestCrowds(t *testing.T) {
	run := &harness.Run{Seed: 7}
	for number := range uint64(6) {
		require.NoError(t, crowded(t.Context(), t.TempDir(), run.Random(number)))
	}
}
