// Package offset lets tests move a store's clock: the server's own time, and so much more.
package offset

import (
	"context"
	"time"
)

type key struct{}

// With returns a context with which the New of an adapter makes a store whose clock is ahead of the server's by what by
// returns; nil: by nothing.
func With(ctx context.Context, by func() time.Duration) context.Context {
	return context.WithValue(ctx, key{}, by)
}

// From returns by how much the store's clock is ahead: by nothing, unless a test says so.
func From(ctx context.Context) func() time.Duration {
	if by, ok := ctx.Value(key{}).(func() time.Duration); ok && by != nil {
		return by
	}
	return func() time.Duration { return 0 }
}
