//go:build !race

package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The race detector allocates itself.
func TestAWrongCountOfAllocationsIsAFailure(t *testing.T) {
	b := &bench{notes: map[int][]string{}}
	var kept []byte
	b.exactly(1, "what a buffer takes", 1, func() { kept = make([]byte, 100) })
	require.Empty(t, b.broken)
	b.exactly(1, "what a buffer takes", 0, func() { kept = make([]byte, 100) })
	require.Len(t, b.broken, 1)
	require.Len(t, kept, 100)
}
