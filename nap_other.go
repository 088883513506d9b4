//go:build !linux

package quota

// nap does nothing where the system has no short one.
func nap() {}
