//go:build !unix

package hostile

import (
	"context"
	"errors"
	"math/rand/v2"
)

var errUnix = errors.New("a process can be stopped on Unix only")

func hold([]string) error { return errUnix }

func stopped(context.Context, string, *rand.Rand, bool) error { return errUnix }
