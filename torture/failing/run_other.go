//go:build !linux || (!amd64 && !arm64)

package failing

import (
	"context"
	"errors"

	"example.com/quota/torture/harness"
)

func run(context.Context, *harness.Run) error {
	return errors.New("it runs on Linux only (amd64 and arm64)")
}

func workers() map[string]func(args []string) error { return nil }
