//go:build race

package quota

// raceDetector: it makes a sync.Pool forget at random, so that allocations cannot be counted.
const raceDetector = true
