package quotatest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"example.com/quota"
)

// The quotas of the suite's states. Their names are plain, so that a store that stumbles over a name is told so once.
const (
	callQuota = "calls"     // every kind of window, open holds
	freeQuota = "unlimited" // usage and history alone
	userQuota = "user:ann"  // of a template
	sumQuota  = "sum:a"     // of a template; its limit counts for ever, so that increments can be counted
	sumQuota2 = "sum:b"
)

func budget() quota.Limit {
	return quota.Limit{Unit: quota.UnitUSD, Max: 50_000 * quota.Dollar, Window: quota.Monthly(nil, 31)}
}

func sampleQuotas() []quota.Quota {
	return append(templates(), []quota.Quota{
		{Name: callQuota, Limits: []quota.Limit{
			{Max: 1000},
			{Max: 5000, Window: quota.Weekly(nil, time.Monday)},
			{Max: 60, Window: quota.Every(time.Minute)},
			{Max: 600, Window: quota.Session(5 * time.Hour)},
			{Max: 16, Window: quota.InFlight()},
			{Unit: quota.UnitTokens, Max: math.MaxInt64 / 2, Window: quota.Lifetime()},
			{Unit: quota.UnitInputTokens, Max: 100_000, Window: quota.Rolling(time.Hour)},
			{Unit: quota.UnitOutputTokens, Max: 100_000, Window: quota.Refill(time.Hour)},
			budget(),
		}},
		{Name: freeQuota},
	}...)
}

// templates are the quotas that a tracker opens no books for until somebody uses them.
func templates() []quota.Quota {
	return []quota.Quota{
		{Name: "sum:*", Limits: []quota.Limit{{Max: math.MaxInt64 / 2, Window: quota.Lifetime()}}},
		{Name: "user:*", Limits: []quota.Limit{{Max: 100}, budget()}},
		{Name: "*", Limits: []quota.Limit{{Max: 100}}},
	}
}

// unusualNames are quota names that a store may lose, mix up or stumble over.
func unusualNames() []string {
	return []string{
		// Collations and file systems that do not tell case, Unicode normalisation, padding, other planes.
		"case", "Case", "CASE", "caf\u00e9", "cafe\u0301",
		"trailing", "trailing ", " trailing", "no\u00a0break", "\U0001F680 \u4e16\u754c",
		// Patterns and separators.
		"a_b", "a%b", "a?b", "[a]b", "a.b", "a:b", "a,b", "a;b", "a b", "{a}b", "$a", "@a", "#a", "-a",
		// Paths.
		"../a", "..", ".", "a/b", "a//b", `a\b`, "NUL",
		// Quoting, and texts that mean a value.
		`'`, `"`, "`", `' OR 1=1 --`, "<b>&", `\u0000`, "%s%d", "%00", "0", "null", "true", "__proto__",
		// The longest.
		strings.Repeat("n", 256), strings.Repeat("\u00e9", 128),
	}
}

func newTracker(
	ctx context.Context, store quota.Persistence, clock quota.Clock, quotas []quota.Quota,
) (*quota.QuotaTracker, error) {
	return quota.New(ctx, quota.Config{
		Persistence: store,
		Quotas:      quotas,
		Clock:       clock,
		Logger:      slog.New(slog.DiscardHandler),
	})
}

// states are what real trackers have saved, in JSON, so that every rule gets states of its own.
type states struct {
	first, last, names []byte
	end                time.Time // when the last was saved
}

func (s *states) early() *quota.State { return decode(s.first) } // one day, a few books
func (s *states) late() *quota.State  { return decode(s.last) }  // days later, with a history
func (s *states) named() *quota.State { return decode(s.names) } // unusual names

// decode cannot fail: record has tried.
func decode(data []byte) *quota.State {
	s := new(quota.State)
	if err := json.Unmarshal(data, s); err != nil {
		panic(fmt.Sprintf("quotatest: a saved state cannot be read: %v", err))
	}
	return s
}

// large returns a state of more than half a megabyte: many users, and ninety days of many quotas.
func (s *states) large() (*quota.State, error) {
	const users, historied = 600, 20
	large := s.late()
	pattern, err := json.Marshal(large.Books[userQuota])
	if err != nil {
		return nil, err
	}
	for i := range users {
		book := new(quota.Book)
		if err := json.Unmarshal(pattern, book); err != nil {
			return nil, err
		}
		large.Books[fmt.Sprintf("user:%d", i)] = book
	}
	for i := range historied {
		name := fmt.Sprintf("quota %d", i)
		for day := range 90 {
			large.History[name] = append(large.History[name], quota.DaySummary{
				Quota: name,
				Day:   start().AddDate(0, 0, day-90),
				Used:  map[quota.Unit]int64{quota.UnitRequests: int64(day), quota.UnitTokens: math.MaxInt64 - int64(day)},
				Calls: int64(day),
			})
		}
	}
	return large, nil
}

// A recorder is a store that keeps the last state saved, in JSON.
type recorder struct {
	state *quota.State // to begin with
	saved []byte
}

func (r *recorder) Load(context.Context) (*quota.State, error) { return r.state, nil }

func (r *recorder) Save(_ context.Context, s *quota.State) (err error) {
	r.saved, err = json.Marshal(s)
	return err
}

// record runs trackers and keeps what they save.
func record() (*states, error) {
	var recorded states
	clock := NewClock(start().Add(9 * time.Hour))
	first, last, named := new(recorder), new(recorder), new(recorder)
	for _, step := range []struct {
		from, to *recorder
		run      func(*quota.QuotaTracker) error
	}{
		{nil, first, firstDay},
		{first, last, func(tracker *quota.QuotaTracker) error { return laterDays(tracker, clock) }},
		{nil, named, manyNames},
	} {
		if step.from != nil {
			step.to.state = decode(step.from.saved)
		}
		tracker, err := newTracker(context.Background(), step.to, clock, sampleQuotas())
		if err != nil {
			return nil, err
		}
		if err := errors.Join(step.run(tracker), tracker.Close()); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(step.to.saved, new(quota.State)); err != nil {
			return nil, err
		}
	}
	recorded.first, recorded.last, recorded.names, recorded.end = first.saved, last.saved, named.saved, clock.Now()

	late := recorded.late()
	for _, name := range []string{callQuota, freeQuota, userQuota, sumQuota} {
		if late.Books[name] == nil {
			return nil, fmt.Errorf("the tracker has saved no book of %s", name)
		}
	}
	if len(late.History[callQuota]) == 0 || len(late.History[freeQuota]) == 0 {
		return nil, fmt.Errorf("the tracker has saved no history of %s or %s", callQuota, freeQuota)
	}
	return &recorded, nil
}

func manyNames(tracker *quota.QuotaTracker) error {
	for i, name := range unusualNames() {
		if err := tracker.RecordUsage(context.Background(), name, quota.Requests(int64(i))); err != nil {
			return err
		}
	}
	return nil
}

func firstDay(tracker *quota.QuotaTracker) error {
	ctx := context.Background()
	const odd = 1<<53 + 1 // not a float64
	if err := tracker.RecordUsage(ctx, callQuota, quota.Requests(2), quota.Tokens(odd), quota.PicoUSD(odd)); err != nil {
		return err
	}
	if err := tracker.RecordUsage(ctx, userQuota, quota.Requests(7), quota.USD(0.07)); err != nil {
		return err
	}
	_, err := tracker.Acquire(ctx, quota.Request{
		All: []string{callQuota, userQuota}, Amounts: []quota.Amount{quota.InputTokens(1200), quota.OutputTokens(300)},
		ID: "task/1", TTL: 30 * 24 * time.Hour,
	})
	return err
}

func laterDays(tracker *quota.QuotaTracker, clock *Clock) error {
	ctx := context.Background()
	for day := range 3 {
		for _, name := range []string{callQuota, freeQuota, userQuota, sumQuota} {
			if err := tracker.RecordUsage(ctx, name, quota.Requests(int64(40+day)), quota.Tokens(1000)); err != nil {
				return err
			}
		}
		if err := tracker.RecordUsage(ctx, freeQuota, quota.Amount{Unit: "images", N: math.MaxInt64}); err != nil {
			return err
		}
		// Left open: on the next day it has expired.
		if _, err := tracker.Reserve(ctx, callQuota, quota.Tokens(500), quota.USD(0.25)); err != nil {
			return err
		}
		settled, err := tracker.Acquire(ctx, quota.Request{All: []string{callQuota}, ID: fmt.Sprintf("settled %d", day)})
		if err != nil {
			return err
		}
		if err := settled.Commit(ctx, quota.InputTokens(10), quota.OutputTokens(20)); err != nil {
			return err
		}
		clock.Advance(24 * time.Hour)
	}
	for _, name := range []string{callQuota, freeQuota, userQuota, sumQuota} {
		if err := tracker.RecordUsage(ctx, name, quota.Requests(3)); err != nil {
			return err
		}
	}
	if err := tracker.Observe(ctx, userQuota, quota.Observation{RetryAfter: time.Hour}); err != nil {
		return err
	}
	_, err := tracker.Reserve(ctx, callQuota, quota.Tokens(100))
	return err
}

// errTaken tells a tracker that its update has failed, when all that is wanted of it stands in the books.
var errTaken = errors.New("quotatest: the books are taken")

// A loopback is a SharedPersistence that hands a tracker the very books it was made with, so that the tracker changes
// them in place and puts what has changed there under another pointer. It takes one update and reports it as failed: the
// tracker then leaves the books alone.
type loopback struct {
	books map[string]*quota.Book
	taken bool
}

func (l *loopback) Load(context.Context) (*quota.State, error) { return nil, nil }

func (l *loopback) Save(context.Context, *quota.State) error {
	return errors.New("a tracker has called Save of a SharedPersistence")
}

func (l *loopback) Update(_ context.Context, _ []string, fn func(*quota.Tx) error) error {
	if l.taken {
		return errTaken
	}
	l.taken = true
	return cmp.Or(fn(&quota.Tx{Books: l.books}), errTaken)
}

// use records n requests of name in books, as a tracker does it: in place, and then under another pointer.
func (s *states) use(books map[string]*quota.Book, name string, n int64) error {
	ctx := context.Background()
	tracker, err := newTracker(ctx, &loopback{books: books}, NewClock(s.end), templates())
	if err != nil {
		return err
	}
	err = tracker.RecordUsage(ctx, name, quota.Requests(n))
	_ = tracker.Close() // it fails, because the tracker believes that its usage is not saved
	if !errors.Is(err, errTaken) {
		return fmt.Errorf("the suite cannot use a book: %w", err)
	}
	return nil
}

// used returns how many requests the limit of name has counted in books. They belong to it from then on.
func (s *states) used(books map[string]*quota.Book, name string) (int64, error) {
	state := s.early()
	state.Books = books
	tracker, err := newTracker(context.Background(), &recorder{state: state}, NewClock(s.end), templates())
	if err != nil {
		return 0, err
	}
	status, ok := tracker.Status(name)
	if err := tracker.Close(); err != nil {
		return 0, err
	}
	if !ok || len(status.Limits) != 1 {
		return 0, fmt.Errorf("the suite finds no limit of %s", name)
	}
	return status.Limits[0].Used, nil
}

// A change is something that the owner of a state may do to it.
type change struct {
	what string
	to   func(*quota.State) error
}

// changes spoil a state in every way that a caller can, from the outside in.
func (s *states) changes() []change {
	return []change{
		{"a field", func(state *quota.State) error {
			state.Version, state.Generation, state.UpdatedAt = -1, 0, start().AddDate(-1, 0, 0)
			return nil
		}},
		{"the books in place", func(state *quota.State) error { return s.use(state.Books, sumQuota, 5) }},
		{"the history in place", func(state *quota.State) error {
			for _, days := range state.History {
				for i := range days {
					for unit := range days[i].Used {
						days[i].Used[unit]++
					}
					days[i].Calls++
				}
			}
			return nil
		}},
		{"whole books", func(state *quota.State) error {
			for _, book := range state.Books {
				*book = quota.Book{}
			}
			return nil
		}},
		{"the maps", func(state *quota.State) error {
			clear(state.Books)
			clear(state.History)
			return nil
		}},
	}
}

// A form is a state in the form in which states are compared.
type form struct {
	version        int
	generation     uint64
	updatedAt      time.Time
	books, history []byte // JSON
}

func formOf(s *quota.State) (*form, error) {
	books, err := booksJSON(s.Books)
	if err != nil {
		return nil, err
	}
	history := []byte("{}")
	if len(s.History) > 0 {
		if history, err = json.Marshal(s.History); err != nil {
			return nil, fmt.Errorf("the history has no JSON form: %w", err)
		}
	}
	return &form{s.Version, s.Generation, s.UpdatedAt, books, history}, nil
}

func booksJSON(books map[string]*quota.Book) ([]byte, error) {
	for name, book := range books {
		if book == nil {
			return nil, fmt.Errorf("the book of %q is nil: leave out what does not exist", name)
		}
	}
	if books == nil {
		return []byte("{}"), nil
	}
	data, err := json.Marshal(books)
	if err != nil {
		return nil, fmt.Errorf("the books have no JSON form: %w", err)
	}
	return data, nil
}

// bookTrees returns the JSON form of books, decoded. They go through JSON once more before, as what is loaded has done.
func bookTrees(books map[string]*quota.Book) (map[string]any, error) {
	data, err := booksJSON(books)
	if err != nil {
		return nil, err
	}
	again := make(map[string]*quota.Book)
	if err := json.Unmarshal(data, &again); err != nil {
		return nil, fmt.Errorf("the books cannot be read again: %w", err)
	}
	if data, err = booksJSON(again); err != nil {
		return nil, err
	}
	return tree(data), nil
}

// tree decodes an object that package json has encoded.
func tree(data []byte) map[string]any {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // a float64 cannot hold every int64
	decoded := make(map[string]any)
	if err := decoder.Decode(&decoded); err != nil {
		panic(fmt.Sprintf("quotatest: package json cannot read what it wrote: %v", err))
	}
	return decoded
}

// exactly returns how got differs from want, in words, or "".
func exactly(want, got *form) string {
	if want.generation != got.generation {
		return fmt.Sprintf("Generation is %d, was %d", got.generation, want.generation)
	}
	return compare(want, got)
}

// compare is exactly, save that got may be of a later generation.
func compare(want, got *form) string {
	switch {
	case want.version != got.version:
		return fmt.Sprintf("Version is %d, was %d", got.version, want.version)
	case want.generation > got.generation:
		return fmt.Sprintf("Generation is %d, was %d", got.generation, want.generation)
	case !want.updatedAt.Equal(got.updatedAt):
		return fmt.Sprintf("UpdatedAt is %v, was %v", got.updatedAt, want.updatedAt)
	}
	if !bytes.Equal(want.books, got.books) {
		if wrong := difference("Books", tree(want.books), tree(got.books)); wrong != "" {
			return wrong
		}
	}
	if !bytes.Equal(want.history, got.history) {
		return difference("History", tree(want.history), tree(got.history))
	}
	return ""
}

// difference names the first place where two trees differ.
func difference(path string, want, got any) string {
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok {
			break
		}
		keys := maps.Clone(want)
		maps.Copy(keys, got)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			place := fmt.Sprintf("%s[%q]", path, key)
			if _, ok := got[key]; !ok {
				return place + " is missing"
			}
			if _, ok := want[key]; !ok {
				return place + " is there, and was not"
			}
			if wrong := difference(place, want[key], got[key]); wrong != "" {
				return wrong
			}
		}
		return ""
	case []any:
		got, ok := got.([]any)
		if !ok {
			break
		}
		if len(want) != len(got) {
			return fmt.Sprintf("%s has %d elements, had %d", path, len(got), len(want))
		}
		for i := range want {
			if wrong := difference(fmt.Sprintf("%s[%d]", path, i), want[i], got[i]); wrong != "" {
				return wrong
			}
		}
		return ""
	default:
		if want == got {
			return ""
		}
	}
	return fmt.Sprintf("%s is %.80v, was %.80v", path, got, want)
}
