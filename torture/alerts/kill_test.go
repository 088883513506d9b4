//go:build linux && (amd64 || arm64)

package alerts

import (
	"testing"

	"github.com/stretchr/testify/require"

	"example.com/quota/torture/victim"
)

func TestCallsTellWhichAlertsWereSavedAsDelivered(t *testing.T) {
	replaced := victim.Call{Name: "renameat", Path: ".memory/.quota_state.json.tmp-1", To: victim.StatePath}
	say := func(text string) victim.Call { return victim.Call{Name: "write", Path: victim.Ack, Said: text} }
	told, marked, err := heard([]victim.Call{
		replaced,
		say(`{"alert":"alpha/requests per day/50@2026-03-02 | first"}` + "\n"),
		{Name: "renameat", Path: replaced.Path, To: victim.StatePath + ".bak"},
		say(`{"alert":"alpha/requests per day/80@2026-03-02 | second"}` + "\n"),
		replaced,
		say("{}\n"),
		say(`{"alert":"alpha/requests per day/90@2026-03-02 | third"}` + "\n"),
	})
	require.NoError(t, err)
	require.Equal(t, []entry{{50, "first"}, {80, "second"}, {90, "third"}}, told)
	require.Equal(t, map[string]bool{"first": true, "second": true}, marked)

	_, _, err = heard([]victim.Call{say("{\n")})
	require.Error(t, err)
}
