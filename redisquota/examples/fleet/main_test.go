package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/quota/redisquota/internal/redistest"
)

func TestMain(m *testing.M) {
	if os.Getenv(member) != "" { // the program has started itself, which is this one here
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func TestTheFleetSendsWhatTheAccountAllowsAndGoesOnFromThere(t *testing.T) {
	addr := redistest.Start(t).Addr()
	var out, errs bytes.Buffer
	require.Zero(t, run(t.Context(), []string{"-addr", addr}, &out, &errs), errs.String())
	require.Contains(t, out.String(), "150/150")
	require.Contains(t, out.String(), "The fleet has sent 150 of its 180 tasks")
	require.Equal(t, 1, strings.Count(out.String(), "used 90% of its requests per day"), out.String())
	out.Reset()
	require.Zero(t, run(t.Context(), []string{"-addr", "redis://" + addr}, &out, &errs), errs.String())
	require.Contains(t, out.String(), "The fleet has sent 0 of its 180 tasks")
	require.NotZero(t, run(t.Context(), []string{"-addr", "127.0.0.1:1"}, &out, &errs))
	require.Contains(t, errs.String(), "127.0.0.1:1")
}
