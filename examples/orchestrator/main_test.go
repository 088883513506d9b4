package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// outcome is what a run left: its exit code and what it printed.
type outcome struct {
	code           int
	stdout, stderr string
}

func runWith(t *testing.T, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, &stdout, &stderr)
	return outcome{code, stdout.String(), stderr.String()}
}

func stateIn(t *testing.T) string { return filepath.Join(t.TempDir(), "state.json") }

func fileWith(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "input")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// A hook is an output that runs do once, when a line that contains on is printed.
type hook struct {
	bytes.Buffer
	on   string
	do   func()
	once sync.Once
}

func (h *hook) Write(data []byte) (int, error) {
	if bytes.Contains(data, []byte(h.on)) {
		h.once.Do(h.do)
	}
	return h.Buffer.Write(data)
}

func TestASecondRunContinuesFromTheFirst(t *testing.T) {
	state := stateIn(t)
	first := runWith(t, "-state", state, "-speed", "500")
	require.Zero(t, first.code, first.stderr)
	require.Contains(t, first.stdout, "starting fresh")
	require.Contains(t, first.stdout, "34 answered, 1 of unknown outcome, 1 not sent, 0 turned away")
	require.Contains(t, first.stdout, "totals match")
	require.Equal(t, 1, strings.Count(first.stdout, "50% of its requests per day"), first.stdout)

	second := runWith(t, "-state", state, "-speed", "500")
	require.Zero(t, second.code, second.stderr)
	require.Contains(t, second.stdout, "continuing from")
	require.Contains(t, second.stdout, "totals match")
	require.NotContains(t, second.stdout, "50% of its requests per day", "an alert was repeated")
	require.Contains(t, second.stdout, "90% of its requests per day")
}

func TestTasksFallOverToTheNextProviderAndAreTurnedAwayAfterTheLast(t *testing.T) {
	config := fileWith(t, `[
		{"name": "second", "limits": [{"max": 3, "window": "lifetime"}]},
		{"name": "gemini_free", "limits": [{"max": 2, "window": "lifetime"}]}]`)
	var tasks strings.Builder
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		tasks.WriteString(`{"id": "` + id + `", "prompt_tokens": 10, "max_output_tokens": 5}` + "\n")
	}
	// With this seed none of the calls fails.
	got := runWith(t, "-config", config, "-tasks", fileWith(t, tasks.String()), "-state", stateIn(t),
		"-speed", "100", "-seed", "4")
	require.Zero(t, got.code, got.stderr)
	require.Contains(t, got.stdout, "5 answered, 0 of unknown outcome, 0 not sent, 2 turned away\n3 fell over")
	require.Contains(t, got.stdout, "totals match")
}

func TestATraceIsReplayedToTheLastRow(t *testing.T) {
	trace := fileWith(t, traceHeader+"\r\n"+
		"2023-11-16 18:17:03.9799600,4808,10\r\n"+
		"2023-11-16 18:17:04.0319600,3180,8\r\n"+
		"2023-11-16 18:17:09.0000000,110,27")
	got := runWith(t, "-trace", trace, "-state", stateIn(t), "-speed", "5000", "-seed", "4")
	require.Zero(t, got.code, got.stderr)
	require.Contains(t, got.stdout, "3 answered")
	require.Regexp(t, `gemini_free +workers +3 +8,098 +45 `, got.stdout)
	require.Regexp(t, `tracker +3 +8,098 +45 `, got.stdout)
}

func TestCtrlCSettlesWhatIsInFlightAndSaves(t *testing.T) {
	state := stateIn(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	stdout := &hook{on: "task-01", do: interrupt}
	var stderr bytes.Buffer
	code := run(ctx, []string{"-state", state}, stdout, &stderr)
	require.Equal(t, exitInterrupted, code, stderr.String())
	require.Contains(t, stdout.String(), "not started")
	require.Contains(t, stdout.String(), "totals match")

	tracker, err := quota.New(t.Context(), quota.Config{Persistence: quota.NewJSONFile(state), Quotas: builtinQuotas()})
	require.NoError(t, err)
	defer tracker.Close()
	status, _ := tracker.Status("gemini_free")
	require.Zero(t, status.Reservations)
	require.Positive(t, status.Today.Calls)
}

func TestUsageTheWorkersKnowNothingOfIsAMismatch(t *testing.T) {
	state := stateIn(t)
	stdout := &hook{on: "task-01", do: func() {
		other, err := quota.New(t.Context(), quota.Config{Persistence: quota.NewJSONFile(state), Quotas: builtinQuotas()})
		if err == nil {
			err = other.RecordUsage(t.Context(), "gemini_free", quota.InputTokens(7))
		}
		if err == nil {
			err = other.Close()
		}
		if err != nil {
			t.Error(err)
		}
	}}
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"-state", state, "-speed", "500"}, stdout, &stderr)
	require.Equal(t, exitMismatch, code)
	require.Contains(t, stderr.String(), "totals do not match")
	require.Contains(t, stderr.String(), "gemini_free")
	require.NotContains(t, stdout.String(), "totals match")
	requireOneLine(t, stderr.String())
}

func TestWhatCannotBeStartedIsOneLineAndExitCode2(t *testing.T) {
	good := fileWith(t, `{"id": "a", "prompt_tokens": 1, "max_output_tokens": 1}`)
	directory := t.TempDir()
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"unknown flag":       {[]string{"-quick"}, "-quick"},
		"no number":          {[]string{"-speed", "fast"}, "fast"},
		"speed 0":            {[]string{"-speed", "0"}, "-speed 0"},
		"speed not a number": {[]string{"-speed", "NaN"}, "-speed NaN"},
		"no workers":         {[]string{"-workers", "0"}, "-workers 0"},
		"an argument":        {[]string{"tasks.jsonl"}, `"tasks.jsonl"`},
		"both inputs":        {[]string{"-tasks", good, "-trace", good}, "exclude"},
		"no task file":       {[]string{"-tasks", "missing.jsonl"}, "missing.jsonl"},
		"no trace":           {[]string{"-trace", "missing.csv"}, "missing.csv"},
		"no configuration":   {[]string{"-config", "missing.json"}, "missing.json"},
		"a directory":        {[]string{"-tasks", directory}, directory},
		"empty list":         {[]string{"-tasks", fileWith(t, "\n")}, "no tasks"},
		"header only":        {[]string{"-trace", fileWith(t, traceHeader+"\r\n")}, "no tasks"},
		"bad task":           {[]string{"-tasks", fileWith(t, "{}\n")}, "line 1"},
		"bad row":            {[]string{"-trace", fileWith(t, traceHeader+"\r\nx,1,1")}, "line 2"},
		"bad configuration":  {[]string{"-config", fileWith(t, `[{"name": "a", "limit": []}]`)}, "limit"},
		"no quotas":          {[]string{"-config", fileWith(t, `[]`)}, "no quotas"},
		"a template":         {[]string{"-config", fileWith(t, `[{"name": "user:*"}]`)}, "user:*"},
		"state no file":      {[]string{"-tasks", good, "-state", directory}, directory},
		"state no name":      {[]string{"-state", ""}, "-state"},
	} {
		t.Run(name, func(t *testing.T) {
			args := c.args
			if !strings.Contains(strings.Join(args, " "), "-state") {
				args = append(args, "-state", stateIn(t))
			}
			got := runWith(t, args...)
			require.Equal(t, exitNotStarted, got.code)
			require.Empty(t, got.stdout)
			require.Contains(t, got.stderr, c.says)
			requireOneLine(t, got.stderr)
		})
	}
}

func requireOneLine(t *testing.T, text string) {
	t.Helper()
	require.True(t, strings.HasPrefix(text, "orchestrator: "), text)
	require.Equal(t, len(text)-1, strings.IndexByte(text, '\n'), text)
}

func TestHelpListsTheFlags(t *testing.T) {
	got := runWith(t, "-h")
	require.Zero(t, got.code)
	require.Empty(t, got.stderr)
	for _, name := range []string{"-tasks", "-trace", "-speed", "-config", "-state", "-workers", "-seed"} {
		require.Contains(t, got.stdout, name+" ")
	}
}

func TestTasksAreReadLineByLine(t *testing.T) {
	tasks, err := parseTasks(strings.NewReader(
		"{\"id\": \"a\", \"prompt_tokens\": 1200, \"max_output_tokens\": 400}\r\n\n"+
			`{"id": "b", "prompt_tokens": 0, "max_output_tokens": 1}`), 1)
	require.NoError(t, err)
	require.Len(t, tasks, 2)
	require.Equal(t, "a", tasks[0].id)
	require.EqualValues(t, 1200, tasks[0].prompt)
	require.EqualValues(t, 400, tasks[0].maxOutput)
	require.LessOrEqual(t, tasks[0].output, tasks[0].maxOutput)
	require.Equal(t, task{number: 1, id: "b", maxOutput: 1, output: 1}, tasks[1])
}

func TestBadTasksNameTheirLine(t *testing.T) {
	for name, c := range map[string]struct{ line, says string }{
		"not JSON":        {`id=b`, "invalid character"},
		"cut off":         {`{"id": "b"`, "unexpected EOF"},
		"an array":        {`[]`, "array"},
		"null":            {`null`, "id is missing"},
		"unknown field":   {`{"id": "b", "model": "x", "prompt_tokens": 1, "max_output_tokens": 1}`, `"model"`},
		"two on a line":   {`{"id": "b", "prompt_tokens": 1, "max_output_tokens": 1} {}`, "more than one"},
		"no id":           {`{"prompt_tokens": 1, "max_output_tokens": 1}`, "id is missing"},
		"id for terminal": {`{"id": "\u001b[2J", "prompt_tokens": 1, "max_output_tokens": 1}`, "printed"},
		"used id":         {`{"id": "a", "prompt_tokens": 1, "max_output_tokens": 1}`, "already on line 1"},
		"no prompt":       {`{"id": "b", "max_output_tokens": 1}`, "prompt_tokens is missing"},
		"negative":        {`{"id": "b", "prompt_tokens": -1, "max_output_tokens": 1}`, "prompt_tokens -1"},
		"fraction":        {`{"id": "b", "prompt_tokens": 1.5, "max_output_tokens": 1}`, "1.5"},
		"overflow":        {`{"id": "b", "prompt_tokens": 1, "max_output_tokens": 99999999999999999999}`, "max_output_tokens"},
		"no output":       {`{"id": "b", "prompt_tokens": 1}`, "max_output_tokens is missing"},
		"zero output":     {`{"id": "b", "prompt_tokens": 1, "max_output_tokens": 0}`, "max_output_tokens 0"},
		"endless line":    {strings.Repeat(" ", 1<<17), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			good := `{"id": "a", "prompt_tokens": 1, "max_output_tokens": 1}`
			_, err := parseTasks(strings.NewReader(good+"\n\n"+c.line+"\n"), 1)
			require.ErrorContains(t, err, "line 3: ")
			require.ErrorContains(t, err, c.says)
		})
	}
}

func TestATraceKeepsItsTimesAndTokens(t *testing.T) {
	trace := traceHeader + "\r\n2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.0319601,3180,8"
	tasks, err := parseTrace(strings.NewReader(trace), 1)
	require.NoError(t, err)
	require.Len(t, tasks, 2)
	require.Zero(t, tasks[0].arrives)
	require.Equal(t, 52*time.Millisecond+100*time.Nanosecond, tasks[1].arrives)
	require.EqualValues(t, 3180, tasks[1].prompt)
	require.EqualValues(t, 8, tasks[1].output)
	require.Greater(t, tasks[1].maxOutput, tasks[1].output)

	again, err := parseTrace(strings.NewReader(strings.ReplaceAll(trace, "\r", "")), 1)
	require.NoError(t, err)
	require.Equal(t, tasks, again, "the same seed and rows give the same tasks")
}

func TestBadTraceRowsNameTheirLine(t *testing.T) {
	for name, c := range map[string]struct{ row, says string }{
		"too few fields":  {"2023-11-16 18:17:05,1", "2 fields"},
		"too many fields": {"2023-11-16 18:17:05,1,1,1", "4 fields"},
		"no timestamp":    {"yesterday,1,1", `"yesterday"`},
		"no such day":     {"2023-02-30 18:17:05,1,1", "2023-02-30"},
		"not a number":    {"2023-11-16 18:17:05,many,1", "ContextTokens"},
		"negative":        {"2023-11-16 18:17:05,1,-1", "GeneratedTokens"},
		"back in time":    {"2023-11-16 18:17:03,1,1", "before"},
		"a quote":         {`2023-11-16 18:17:05,"1,1`, "quote"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseTrace(strings.NewReader(traceHeader+"\r\n2023-11-16 18:17:04.0000001,1,1\r\n"+c.row), 1)
			require.ErrorContains(t, err, "line 3")
			require.ErrorContains(t, err, c.says)
		})
	}
	for _, header := range []string{"", "2023-11-16 18:17:04.0000001,1,1", "TIMESTAMP,ContextTokens"} {
		_, err := parseTrace(strings.NewReader(header), 1)
		require.ErrorContains(t, err, "line 1: the header is not "+traceHeader)
	}
}

func quiet() *printer { return &printer{to: io.Discard} }

// stockOf is a tracker with one quota, and how it stands.
func stockOf(t *testing.T) (*quota.QuotaTracker, *quotatest.Clock, func() stock) {
	tracker, clock := quotatest.New(t, quota.Quota{Name: "p", Limits: []quota.Limit{{Max: 100}}})
	return tracker, clock, func() stock { return takeStock(tracker, []provider{{name: "p"}}) }
}

func TestReconciliationSeesEveryDifference(t *testing.T) {
	held := use{requests: 1, input: 20, output: 9, pico: 300}
	actual := use{requests: 1, input: 20, output: 5, pico: 200}
	for name, c := range map[string]struct {
		counted tally
		says    string
	}{
		"agrees":            {tally{known: actual, unknown: held}, ""},
		"a call too few":    {tally{known: actual}, "requests"},
		"a token too many":  {tally{known: actual.plus(use{input: 1}), unknown: held}, "input tokens"},
		"a cent too little": {tally{known: actual.minus(use{pico: 1}), unknown: held}, "picodollars"},
		"taken for known":   {tally{known: actual.plus(held)}, "requests of unknown outcome"},
	} {
		t.Run(name, func(t *testing.T) {
			tracker, _, stockNow := stockOf(t)
			require.NoError(t, tracker.RecordUsage(t.Context(), "p", quota.InputTokens(1000)))
			before := stockNow()
			for _, settle := range []func(*quota.Reservation) error{
				func(r *quota.Reservation) error { return r.Commit(t.Context(), actual.amounts()...) },
				func(r *quota.Reservation) error { return r.Commit(t.Context()) },
				func(r *quota.Reservation) error { return r.Release(t.Context()) },
			} {
				r, err := tracker.Reserve(t.Context(), "p", held.amounts()...)
				require.NoError(t, err)
				require.NoError(t, settle(r))
			}
			err := before.reconcile(quiet(), &counts{used: map[string]tally{"p": c.counted}})
			if c.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.says)
			}
		})
	}
}

func TestReconciliationSeesAReservationLeftOpen(t *testing.T) {
	tracker, _, stockNow := stockOf(t)
	before := stockNow()
	r, err := tracker.Reserve(t.Context(), "p")
	require.NoError(t, err)
	require.ErrorContains(t, before.reconcile(quiet(), &counts{}), "reservations left open")
	require.NoError(t, r.Release(t.Context()))
	require.NoError(t, before.reconcile(quiet(), &counts{}))
}

func TestReconciliationSpansMidnight(t *testing.T) {
	tracker, clock, stockNow := stockOf(t)
	require.NoError(t, tracker.RecordUsage(t.Context(), "p"))
	before := stockNow()
	for range 3 {
		require.NoError(t, tracker.RecordUsage(t.Context(), "p"))
		clock.Advance(24 * time.Hour)
	}
	require.NoError(t, before.reconcile(quiet(), &counts{used: map[string]tally{"p": {known: use{requests: 3}}}}))
}

func TestCallsLeftOpenByAKilledRunAreNotAMismatch(t *testing.T) {
	tracker, clock, stockNow := stockOf(t)
	for range 2 {
		_, err := tracker.Reserve(t.Context(), "p", quota.InputTokens(50))
		require.NoError(t, err)
	}
	before := stockNow()
	require.NoError(t, before.reconcile(quiet(), &counts{}), "still open")

	clock.Advance(time.Hour)
	var printed bytes.Buffer
	require.NoError(t, before.reconcile(&printer{to: &printed}, &counts{}), "expired and charged")
	require.Regexp(t, `left by an earlier run +2 +100 `, printed.String())

	require.NoError(t, tracker.RecordUsage(t.Context(), "p"))
	require.Error(t, before.reconcile(quiet(), &counts{}))
}

func TestTheClockRunsFasterAndNeverStepsBackBetweenRuns(t *testing.T) {
	ahead := time.Now().Add(time.Hour).UTC()
	clock := startClock(t.Context(), savedAt(ahead), 1000)
	require.False(t, clock.Now().Before(ahead))

	behind := time.Now().Add(-time.Hour)
	clock = startClock(t.Context(), savedAt(behind), 1000)
	require.WithinDuration(t, time.Now(), clock.start, time.Minute)
	require.Equal(t, time.Millisecond, clock.real(time.Second))
	require.Equal(t, time.Second, clock.simulated(time.Millisecond))
}

// savedAt is a state last saved at a given time.
type savedAt time.Time

func (s savedAt) Load(context.Context) (*quota.State, error) {
	return &quota.State{UpdatedAt: time.Time(s)}, nil
}
func (savedAt) Save(context.Context, *quota.State) error { return nil }

func TestAmountsAreReadable(t *testing.T) {
	require.Equal(t, "999", thousands(999))
	require.Equal(t, "1,000", thousands(1000))
	require.Equal(t, "18,059,974", thousands(18_059_974))
	require.Equal(t, "$0.0003", dollars(399_999_999))
	require.Equal(t, "$12.0000", dollars(12*quota.Dollar))
}
