package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRowsAreNumberedInOrderAndNamedOnce(t *testing.T) {
	names := make(map[string]bool)
	last := 0
	for _, row := range rows() {
		require.Greater(t, row.Number, last)
		require.False(t, names[row.Name], row.Name)
		require.NotEmpty(t, row.Promise, row.Name)
		require.NotEmpty(t, row.Unit, row.Name)
		last, names[row.Name] = row.Number, true
	}
}

func TestEveryFaultFitsTheLibraryAsItIs(t *testing.T) {
	for _, row := range rows() {
		for _, fault := range row.Faults {
			if _, err := fault.Overlay("..", t.TempDir()); err != nil {
				t.Errorf("%s: %v", row.Name, err) // all of them at once
			}
			require.NotEmpty(t, fault.Edits, row.Name)
			require.NotZero(t, fault.Cases, row.Name)
		}
	}
}
