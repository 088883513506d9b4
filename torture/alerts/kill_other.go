//go:build !linux || (!amd64 && !arm64)

package alerts

import (
	"context"
	"errors"
)

func kills(context.Context, string) ([]trial, error) {
	return nil, errors.New("it runs on Linux only (amd64 and arm64)")
}

func workers() map[string]func([]string) error {
	return map[string]func([]string) error{crossName: cross}
}
