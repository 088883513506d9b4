package pgquota

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFinishedDaysAreFoundBehindAUnitThatIsCalledFinished(t *testing.T) {
	require.Equal(t, `[{"day":1}]`, string(finishedIn([]byte(`{"today":{"used":{"finished":3}},"finished":[{"day":1}]}`))))
	require.Equal(t, `[{"a":["]\""]}]`, string(finishedIn([]byte(`{"finished":[{"a":["]\""]}],"tally":{}}`))))
	require.Nil(t, finishedIn([]byte(`{"today":{"used":{"finished":3}}}`)))
}
