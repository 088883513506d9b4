//go:build !linux

package alerts

// threadID is needed by the kill cases, which run on Linux only.
func threadID() int { return 0 }
