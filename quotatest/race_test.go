//go:build race

package quotatest_test

const raceDetector = true
