package clocks

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/quota/torture/harness"
)

func TestRowFindsNothing(t *testing.T) {
	run := &harness.Run{Seed: 1, Cases: 50}
	require.NoError(t, Row().Run(context.Background(), run))
	require.EqualValues(t, 50, run.Tried())
}
