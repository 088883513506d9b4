package alerts

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestATraceTellsWhichAlertsWereSavedAsDelivered(t *testing.T) {
	trace, err := ofThread(`7 openat(AT_FDCWD, "/torture-padding", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)
9 write(4, "50 not mine\n", 12) = 12
7 write(5, "50 first\n", 9) = 9
7 renameat(AT_FDCWD, "/x/.quota_state.json12", AT_FDCWD, "/x/quota_state.json.bak") = 0
7 renameat(AT_FDCWD, "/x/.quota_state.json12", AT_FDCWD, "/x/quota_state.json" <unfinished ...>
9 close(3) = 0
7 <... renameat resumed>) = 0
7 write(5, "80 second\n", 10) = 10
7 renameat(AT_FDCWD, "/x/.quota_state.json13", AT_FDCWD, "/x/quota_state.json") = -1 EIO (Input/output error)
7 write(5, "90 third\n", 9) = 9
7 renameat(AT_FDCWD, "/x/.quota_state.json14", AT_FDCWD, "/x/quota_state.json") = ?
7 +++ killed by SIGKILL +++
`)
	require.NoError(t, err)
	require.Len(t, trace, 8)
	require.Equal(t, map[string]bool{"first": true}, died(trace))
}
