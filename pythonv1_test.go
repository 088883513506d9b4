package quota

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const pythonState = `{
  "limits": {
    "gemini_cli":  {"limit": 1500, "used": 812, "reserved": 3, "resets_at": "2026-01-27T00:00:00+00:00", "unlimited": false},
    "claude_code": {"limit": null, "used": 37,  "reserved": 0, "resets_at": "2026-01-26T15:30:09.956972+00:00", "unlimited": true},
    "claude_api":  {"limit": 1000000, "used": 120000, "reserved": 0, "resets_at": "2026-01-26T15:30:09.956972+00:00", "unlimited": false}
  },
  "last_updated": "2026-01-26T15:35:09.712663+00:00",
  "version": "1.0",
  "host": "elsewhere"
}
`

func TestTheStateOfThePythonToolIsReadAndWrittenBackInTheNewForm(t *testing.T) {
	path := statePath(t)
	overwrite(t, path, []byte(pythonState))
	f := opened(t, path)
	require.Empty(t, f.recovered())
	state, err := f.Load(t.Context())
	require.NoError(t, err)
	ends := nanos(time.Date(2026, 1, 27, 0, 0, 0, 0, time.UTC))
	require.Equal(t, &imported{812, 3, ends}, state.Books["gemini_cli"].imported())
	require.Equal(t, &imported{37, 0, ends}, state.Books["claude_code"].imported())
	require.Equal(t, &imported{120000, 0, ends}, state.Books["claude_api"].imported())
	require.Len(t, state.Books, 3)

	require.Contains(t, string(contents(t, path)), `"version": 2`)
	require.Equal(t, pythonState, string(contents(t, path+".bak")))
	require.Equal(t, map[string]int64{"gemini_cli": 812, "claude_code": 37, "claude_api": 120000}, saved(t, path))
}

func TestADamagedPythonStateIsCorrupt(t *testing.T) {
	for name, change := range map[string][2]string{
		"negative usage":        {`"used": 812`, `"used": -812`},
		"negative reservation":  {`"reserved": 3`, `"reserved": -3`},
		"a fraction":            {`"used": 812`, `"used": 812.5`},
		"a number too large":    {`"used": 812`, `"used": 9223372036854775808`},
		"a text for a number":   {`"used": 812`, `"used": "812"`},
		"no usage":              {`"used": 812, `, ``},
		"usage twice":           {`"used": 812`, `"used": 812, "used": 1`},
		"a reset that is none":  {`2026-01-27T00:00:00+00:00`, `tomorrow`},
		"an update that is not": {`2026-01-26T15:35:09.712663+00:00`, `now`},
		"no update":             {`"last_updated"`, `"updated"`},
		"no limits":             {`"limits"`, `"quotas"`},
		"another version":       {`"1.0"`, `"1.1"`},
		"no version":            {`"version"`, `"revision"`},
		"a quota of no form":    {`"claude_code": {`, `"other": 5, "claude_code": {`},
		"a quota twice":         {`"claude_code": {`, `"gemini_cli": {`},
	} {
		t.Run(name, func(t *testing.T) {
			data := strings.Replace(pythonState, change[0], change[1], 1)
			require.NotEqual(t, pythonState, data)
			_, err := decodeState([]byte(data), nil)
			require.ErrorIs(t, err, ErrCorruptState)
		})
	}
}

func TestAPythonQuotaThatResetsAtAMidnightInAnotherZoneEndsAtTheSameInstant(t *testing.T) {
	s, err := decodeState([]byte(strings.Replace(pythonState, "2026-01-27T00:00:00+00:00", "2026-01-28T02:00:00+02:00", 1)), nil)
	require.NoError(t, err)
	require.Equal(t, nanos(time.Date(2026, 1, 28, 0, 0, 0, 0, time.UTC)), s.books["gemini_cli"].book.imported().ends)
}
