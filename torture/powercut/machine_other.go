//go:build !linux

package powercut

import (
	"context"
	"errors"

	"example.com/quota/torture/harness"
)

var errLinux = errors.New("power cuts are made on Linux only")

func start(context.Context, *harness.Run) error { return errLinux }

func machine([]string) error { return errLinux }

func monotonic() int64 { return 0 }
