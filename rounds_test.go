package quota

// Rounds is how often a test repeats what it draws at random: the race detector makes it many times slower, and nothing
// runs at once there.
func Rounds(n int) int {
	if raceDetector {
		return n / 4
	}
	return n
}
