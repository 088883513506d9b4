package pgquota_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"example.com/quota"
)

// everyKind is a quota with each kind of window.
func everyKind() quota.Quota {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		panic(err)
	}
	return quota.Quota{Name: "everything", Limits: []quota.Limit{
		{Max: 1_000_000},
		{Max: 2_000_000, Window: quota.Daily(berlin)},
		{Max: 3_000_000, Window: quota.Weekly(berlin, time.Monday)},
		{Max: 4_000_000, Window: quota.Monthly(nil, 15)},
		{Max: 5_000_000, Window: quota.Lifetime()},
		{Max: 5_000, Window: quota.InFlight()},
		{Max: 100_000, Window: quota.Every(time.Minute)},
		{Max: 200_000, Window: quota.Every(24 * time.Hour)},
		{Max: 300_000, Window: quota.Rolling(time.Hour)},
		{Max: 400_000, Window: quota.Rolling(90 * time.Second)},
		{Max: 500_000, Window: quota.Session(5 * time.Hour)},
		{Max: 600_000, Window: quota.Session(time.Minute)},
		{Unit: quota.UnitTokens, Max: 1_000_000_000, Window: quota.Refill(time.Hour)},
		{Unit: quota.UnitTokens, Max: 3_000_000, Window: quota.Every(time.Minute)},
		{Unit: quota.UnitInputTokens, Max: 1_000_000_000, Window: quota.Rolling(24 * time.Hour)},
		{Unit: quota.UnitUSD, Max: 5000 * quota.Dollar, Window: quota.Monthly(nil, 1)},
		{Unit: `im'ag"es`, Max: 0, Soft: true},
	}}
}

func TestTheViewOfAllLimitsSaysWhatATrackerSays(t *testing.T) {
	var clock shift
	connections, schema := pool(t), newSchema()
	tracker := start(t, openWith(t, clock.in(t.Context()), connections, schema), withQuotas(everyKind()))
	random := rand.New(rand.NewPCG(3, 4))
	var open []*quota.Reservation
	for range 120 {
		tokens := []quota.Amount{quota.InputTokens(random.Int64N(1000)), quota.OutputTokens(random.Int64N(1000)), quota.USD(0.25)}
		switch random.IntN(5) {
		case 0:
			require.NoError(t, tracker.RecordUsage(t.Context(), "everything", append(tokens, quota.Amount{Unit: `im'ag"es`, N: 1})...))
		case 1, 2:
			r, err := tracker.Reserve(t.Context(), "everything", append(tokens, quota.Requests(1+random.Int64N(9)))...)
			require.NoError(t, err)
			open = append(open, r)
		case 3:
			if len(open) > 0 {
				err := open[0].Commit(t.Context())
				require.True(t, err == nil || errors.Is(err, quota.ErrSettled), "%v", err) // by usage that matched
				open = open[1:]
			}
		case 4:
			r, err := tracker.Reserve(t.Context(), "everything", quota.Tokens(random.Int64N(5000)))
			require.NoError(t, err)
			open = append(open, r)
		}
		clock.add(time.Duration(random.Int64N(int64(8 * time.Second)))) // 15 minutes on the way, and no hold expires
	}
	compareView(t, connections, schema, tracker, &clock)
	plan := collect[struct{ Line string }](t, connections, replaceSchema("EXPLAIN ANALYZE SELECT * FROM SCHEMA.quota_status", schema))
	require.NotContains(t, fmt.Sprint(plan), "JIT", "preparing the query would take seconds")

	// Nothing writes any more, and windows end all the same.
	for _, later := range []time.Duration{61 * time.Second, 2 * time.Minute} {
		clock.add(later)
		compareView(t, connections, schema, tracker, &clock)
	}
}

// compareView compares what the view says, at the store's time, with what a tracker says.
func compareView(t *testing.T, connections *pgxpool.Pool, schema string, tracker *quota.QuotaTracker, clock *shift) {
	t.Helper()
	at := time.Now().Add(by(clock))
	type line struct {
		Text, Unit          string
		Used, Reserved, Max int64
		Percent             float64
		Ends                *time.Time
	}
	found := map[string]line{}
	for _, l := range collect[line](t, connections, replaceSchema(`SELECT limit_text, unit, used::bigint, reserved::bigint,
		max::bigint, percent::float8, ends_at FROM SCHEMA.books, SCHEMA.status(book, $1) WHERE quota = 'everything'`, schema), at) {
		found[l.Text] = l
	}
	require.NoError(t, tracker.Refresh(t.Context()))
	status, ok := tracker.Status("everything")
	require.True(t, ok)
	require.Len(t, found, len(status.Limits))
	for _, limit := range status.Limits {
		text := limit.Limit.String()
		l, ok := found[text]
		require.True(t, ok, text)
		require.EqualValues(t, limit.Unit, l.Unit, text)
		require.Equal(t, limit.Max, l.Max, text)
		if strings.Contains(text, "refill") { // flows while the test runs
			require.InDelta(t, limit.Used+limit.Reserved, l.Used+l.Reserved, float64(limit.Max)/3600, text)
			continue
		}
		require.Equal(t, limit.Used, l.Used, "used of %s", text)

		require.Equal(t, limit.Reserved, l.Reserved, "reserved of %s", text)
		require.InDelta(t, limit.Percent, l.Percent, 0.06, text)
		if !limit.ResetsAt.IsZero() && l.Ends != nil {
			require.True(t, limit.ResetsAt.Equal(*l.Ends), "%s: %v, %v", text, limit.ResetsAt, l.Ends)
		}
	}
}

func TestTheViewHasNoRowsOfQuotasWithoutLimitsAndKnowsEmptyOnes(t *testing.T) {
	connections, schema := pool(t), newSchema()
	tracker := start(t, open(t, connections, schema), withQuotas(quota.Quota{Name: "free"},
		quota.Quota{Name: "shut", Limits: []quota.Limit{{Max: 0, Soft: true}, {Unit: quota.UnitTokens, Max: 0}}}))
	require.NoError(t, tracker.RecordUsage(t.Context(), "free"))
	require.NoError(t, tracker.RecordUsage(t.Context(), "shut"))
	require.Equal(t, "shut requests 1 0 100, shut tokens 0 0 0", query(t, connections, replaceSchema(
		"SELECT string_agg(concat_ws(' ', quota, unit, used, max, percent), ', ' ORDER BY unit) FROM SCHEMA.quota_status", schema)))
}

func TestFinishedDaysStandInATableOfTheirOwn(t *testing.T) {
	var clock shift
	connections, schema := pool(t), newSchema()
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	noon := time.Now().In(berlin).Truncate(24 * time.Hour).Add(12 * time.Hour)
	clock.to(noon)
	tracker := start(t, openWith(t, clock.in(t.Context()), connections, schema), withQuotas(calls(10)),
		func(cfg *quota.Config) { cfg.Location = berlin })
	var days []string
	for day := range 3 {
		clock.to(noon.AddDate(0, 0, day))
		days = append(days, noon.AddDate(0, 0, day).Format(time.DateOnly))
		require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(int64(4+day)), quota.USD(0.5), quota.InputTokens(7)))
		_, err := tracker.Reserve(t.Context(), "calls", quota.Requests(8))
		require.ErrorIs(t, err, quota.ErrExceeded)
		require.NoError(t, tracker.Flush(t.Context())) // the refusal is counted today
	}
	history := tracker.History("calls")
	require.Len(t, history, 2)
	type line struct {
		Day, Used, Estimated, DeniedBy, Alerts string
		StartsAt                               time.Time
		Calls, Denied, Expired                 int64
		InHistory                              bool
	}
	rows := collect[line](t, connections, replaceSchema(`SELECT day::text, used::text, estimated::text, denied_by::text, alerts::text,
		starts_at, calls, denied, expired, in_history FROM SCHEMA.finished_days WHERE quota = 'calls' ORDER BY day`, schema))
	require.Len(t, rows, 2)
	for i, row := range rows {
		want := history[i]
		require.Equal(t, days[i], row.Day)
		require.True(t, want.Day.Equal(row.StartsAt))
		require.Equal(t, []int64{want.Calls, want.Denied, want.Expired}, []int64{row.Calls, row.Denied, row.Expired})
		require.JSONEq(t, jsonOf(t, want.Used), row.Used)
		require.Equal(t, "{}", row.Estimated)
		require.JSONEq(t, `{"requests per day in Europe/Berlin": 1}`, row.DeniedBy)
		require.JSONEq(t, jsonOf(t, append([]string{}, want.Alerts...)), row.Alerts)
		require.False(t, row.InHistory)
	}
	state, err := open(t, connections, schema).Load(t.Context())
	require.NoError(t, err)
	require.Empty(t, state.History, "the days are in the book")
}

func TestAStateFromAFileIsTakenOverWithItsHistoryAndGoesOn(t *testing.T) {
	var clock shift
	connections, schema := pool(t), newSchema()
	file := quota.NewJSONFile(t.TempDir() + "/quota_state.json")
	tracker := start(t, file, withQuotas(calls(10)))
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(3)))
	require.NoError(t, tracker.Close())
	state, err := file.Load(t.Context())
	require.NoError(t, err)
	yesterday := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -1)
	state.History = map[string][]quota.DaySummary{"calls": {{
		Quota: "calls", Day: yesterday, Used: map[quota.Unit]int64{quota.UnitRequests: 9}, Calls: 9, Alerts: []string{"90% of requests per day"},
	}}}
	store := openWith(t, clock.in(t.Context()), connections, schema)
	require.NoError(t, store.Save(t.Context(), state))

	tracker = start(t, store, withQuotas(calls(10)))
	require.Equal(t, stand{3, 0}, standOf(t, tracker, "calls"))
	require.Len(t, tracker.History("calls"), 1)
	clock.add(24 * time.Hour)
	require.NoError(t, tracker.RecordUsage(t.Context(), "calls"))
	require.Len(t, tracker.History("calls"), 2)
	require.Equal(t, "9 3", query(t, connections, replaceSchema(
		"SELECT string_agg(used->>'requests', ' ' ORDER BY day) FROM SCHEMA.finished_days WHERE quota = 'calls'", schema)))
	require.Equal(t, state.History, loadHistory(t, connections, schema), "an Update leaves it alone")
}

func loadHistory(t *testing.T, connections *pgxpool.Pool, schema string) map[string][]quota.DaySummary {
	t.Helper()
	state, err := open(t, connections, schema).Load(t.Context())
	require.NoError(t, err)
	return state.History
}

func TestASaveIsRefusedWhenTheStateIsNotTheOneThatWasLoaded(t *testing.T) {
	connections, schema := pool(t), newSchema()
	one, two := open(t, connections, schema), open(t, connections, schema)
	list := books(t, 2)
	put(t, one, "a", list[0])
	require.ErrorIs(t, two.Save(t.Context(), &quota.State{}), quota.ErrConflict, "nothing was loaded")
	state, err := two.Load(t.Context())
	require.NoError(t, err)
	require.NoError(t, two.Save(t.Context(), state))
	require.NoError(t, two.Save(t.Context(), state), "what it has saved itself")
	put(t, one, "b", list[1])
	require.ErrorIs(t, two.Save(t.Context(), state), quota.ErrConflict)
	again, err := two.Load(t.Context())
	require.NoError(t, err)
	require.Greater(t, again.Generation, state.Generation)
	require.NoError(t, one.Update(t.Context(), []string{"b"}, func(tx *quota.Tx) error { delete(tx.Books, "b"); return nil }))
	require.ErrorIs(t, two.Save(t.Context(), again), quota.ErrConflict)
	require.Equal(t, map[string]string{"a": text(t, list[0])}, inStore(t, schema))
	require.ErrorIs(t, two.Save(t.Context(), &quota.State{Version: 3}), quota.ErrNewerState)
	for _, wrong := range []*quota.State{nil, {Version: 1}, {Generation: 1 << 63}} {
		require.ErrorIs(t, two.Save(t.Context(), wrong), quota.ErrNotSaved)
	}
}

func TestAnUpdateBesideASaveSeesItsBooks(t *testing.T) {
	connections, schema := pool(t), newSchema()
	one, two := open(t, connections, schema), open(t, connections, schema)
	list := books(t, 3)
	put(t, one, "a", list[0])
	state, err := two.Load(t.Context())
	require.NoError(t, err)
	state.Books["a"] = list[1]
	runs := 0
	require.NoError(t, one.Update(t.Context(), []string{"a"}, func(tx *quota.Tx) error {
		if runs++; runs == 1 {
			require.NoError(t, two.Save(t.Context(), state))
		} else {
			require.Equal(t, text(t, list[1]), text(t, tx.Books["a"]))
		}
		return putting("a", list[2])(tx)
	}))
	require.Equal(t, 2, runs)
	require.Equal(t, text(t, list[2]), inStore(t, schema)["a"])
}

// TestTheQueriesOfTheReadmeWork runs every SQL example.
func TestTheQueriesOfTheReadmeWork(t *testing.T) {
	page, err := os.ReadFile("README.md")
	require.NoError(t, err)
	examples := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllSubmatch(page, -1)
	require.GreaterOrEqual(t, len(examples), 4)
	var clock shift
	connections, schema := pool(t), newSchema()
	tracker := start(t, openWith(t, clock.in(t.Context()), connections, schema), withQuotas(everyKind(), calls(10)))
	for range 2 {
		require.NoError(t, tracker.RecordUsage(t.Context(), "everything", quota.USD(1.5), quota.InputTokens(10), quota.OutputTokens(20)))
		require.NoError(t, tracker.RecordUsage(t.Context(), "calls", quota.Requests(9)))
		_, err := tracker.Reserve(t.Context(), "calls", quota.Requests(2))
		require.ErrorIs(t, err, quota.ErrExceeded)
		require.NoError(t, tracker.Flush(t.Context())) // the refusal is counted today
		clock.add(24 * time.Hour)
	}
	_, err = tracker.Reserve(t.Context(), "everything")
	require.NoError(t, err)
	for _, example := range examples {
		sql := strings.ReplaceAll(string(example[1]), "quota.", schema+".")
		t.Run(strings.SplitN(sql, "\n", 2)[0], func(t *testing.T) {
			result, err := connections.Exec(t.Context(), sql)
			require.NoError(t, err)
			require.Positive(t, result.RowsAffected())
		})
	}
}

func jsonOf(t *testing.T, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	require.NoError(t, err)
	return string(data)
}

// collect returns the rows of a query.
func collect[T any](t *testing.T, connections *pgxpool.Pool, sql string, args ...any) []T {
	t.Helper()
	rows, err := connections.Query(t.Context(), sql, args...)
	require.NoError(t, err)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[T])
	require.NoError(t, err)
	return list
}
