package main

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAWireCountsWhatIsSentAndAnswered(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		lines := bufio.NewReader(conn)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			if line == "ask\n" {
				_, _ = conn.Write([]byte("a long answer\n"))
			}
		}
	}()
	w := &wire{}
	conn, err := w.dial(t.Context(), "tcp", listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	answers := bufio.NewReaderSize(conn, 16)
	for range 3 {
		for _, line := range []string{"tell\n", "tell\n", "ask\n"} {
			_, err := conn.Write([]byte(line))
			require.NoError(t, err)
		}
		answer, err := answers.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "a long answer\n", answer)
	}
	require.Equal(t, int64(3), w.trips.Load())
}

func TestEachDecisionIsTimedAndTheLateOnesAreToldApart(t *testing.T) {
	calls := 0
	first := func(int) error { calls++; return nil }
	second := func(int) error { calls++; return nil }
	done, times, err := decide(0, 1, first, second)
	require.NoError(t, err)
	require.Equal(t, 2, calls, "each runs at least once")
	require.Equal(t, 2, done.ops)
	require.Len(t, times, 2)
	done, times, err = decide(time.Hour, 1, first, func(int) error { return errDenied })
	require.ErrorIs(t, err, errDenied)
	require.Len(t, times, 1)
	require.Equal(t, 1.0, done.figures[opsInTime])
}

func TestAServerThatDoesNotStartSaysWhy(t *testing.T) {
	sh, err := exec.LookPath("sh")
	require.NoError(t, err, "a shell stands in for a server")
	_, err = startServer(t.Context(), t.TempDir(), os.Interrupt, exec.Command(sh, "-c", "echo it is broken; exit 1"),
		func(context.Context) error { return errors.New("no answer") })
	require.ErrorContains(t, err, "it is broken")
}

func TestWithoutItsServerARowIsLeftOutAndSaidSoButFailsUnderCI(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	chosen, err := choose("15")
	require.NoError(t, err)
	measure := func() (*results, error) {
		b := &bench{pace: pace{rounds: 1, time: time.Nanosecond}, ctx: t.Context(), dir: t.TempDir(), log: os.Stderr}
		return b.measure(chosen[1:]) // without the floor
	}
	t.Setenv("CI", "")
	found, err := measure()
	require.NoError(t, err)
	require.Empty(t, found.findings())
	require.Contains(t, found.parts[0].notes[0], "Left out")
	require.Contains(t, found.parts[0].notes[0], "make services")
	t.Setenv("CI", "true")
	_, err = measure()
	require.ErrorIs(t, err, errMissing)
}
