package storetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"example.com/quota"
)

// TestFleet has several processes work on one hot quota at once: in peace, while processes are killed, while connections
// are cut and while the server is restarted (Subject.Network), and over the midnight of the store's clock (Subject.Timed).
// Never more is granted than the quota admits, and in the end exactly as much; nothing that was acknowledged is lost;
// alerts are told once; and in peace every process gets at least a third of its fair share, where there is much to share.
func TestFleet(t *testing.T, subject Subject) { testFleet(t, subject, numbers()) }

func testFleet(t *testing.T, subject Subject, n Numbers) {
	server := subject.Start(t)
	for _, s := range scenarios() {
		if s.network && !subject.Network || s.timed && !subject.Timed {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			seed := newSeed(t)
			t.Logf("seed %d", seed)
			f := newFleet(subject, server, n, seed)
			ctx, cancel := untilDeadline(t)
			defer cancel()
			report, err := f.run(ctx, s)
			t.Log(report)
			if err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
		})
	}
}

// untilDeadline ends early enough before the tests do to say what is wrong.
func untilDeadline(t *testing.T) (context.Context, context.CancelFunc) {
	const lastWords = 20 * time.Second
	if deadline, limited := t.Deadline(); limited {
		return context.WithDeadline(t.Context(), deadline.Add(-lastWords))
	}
	return context.WithCancel(t.Context())
}

// A scenario is what happens to a fleet.
type scenario struct {
	name           string
	run            func(*fleet, context.Context) error
	network, timed bool // what it needs
}

func scenarios() []scenario {
	return []scenario{
		{name: "in peace", run: (*fleet).inPeace},
		{name: "holds are handed over", run: (*fleet).handedOver},
		{name: "processes are killed", run: (*fleet).killed},
		{name: "connections are cut", run: (*fleet).cutOff, network: true},
		{name: "the server is restarted", run: (*fleet).restarted, network: true},
		{name: "over midnight", run: (*fleet).overMidnight, timed: true},
	}
}

// A fleet is several processes on one store.
type fleet struct {
	Numbers
	subject Subject
	server  Server
	place   Place
	ahead   time.Duration // of the store's clock
	days    bool          // the quota is one for each day
	random  *rand.Rand

	progress chan struct{} // something was told; nil: nobody waits for it

	mu     sync.Mutex // guards what follows
	nodes  []*node    // all that were started
	told   tally      // at once, where an order wanted it
	seen   tally      // by callers that have come to their end
	alerts []string   // IDs, as they were told
	report Report
}

// A Report is what a scenario has seen.
type Report struct {
	Granted, Committed int64
	Shares             []int64 // what each process was granted
	Kills, Restarts    int
	Cuts               int   // of connections
	Unsaved            int64 // calls that could not be saved at once
	Took               time.Duration
}

func (r *Report) String() string {
	return fmt.Sprintf("%d granted, %d committed, shares %d, %d kills, %d restarts, %d cuts, %d calls not saved at once, in %v",
		r.Granted, r.Committed, r.Shares, r.Kills, r.Restarts, r.Cuts, r.Unsaved, r.Took.Round(time.Millisecond))
}

func newFleet(subject Subject, server Server, n Numbers, seed uint64) *fleet {
	random := rand.New(rand.NewPCG(seed, 0))
	return &fleet{
		Numbers: n, subject: subject, server: server, random: random,
		place: Place{Address: server.Address, Name: fmt.Sprintf("fleet_%x", time.Now().UnixNano())},
	}
}

// run plays a scenario. No process is left when it returns.
func (f *fleet) run(ctx context.Context, s scenario) (*Report, error) {
	began := time.Now()
	defer func() {
		for _, n := range f.nodes {
			n.end()
		}
	}()
	err := s.run(f, ctx)
	f.report.Took = time.Since(began)
	f.report.Granted, f.report.Committed = max(f.seen.Granted, f.told.Granted), max(f.seen.Committed, f.told.Committed)
	return &f.report, err
}

// open starts a process with a tracker on the store.
func (f *fleet) open(ctx context.Context, number int, skew time.Duration) (*node, error) {
	n, err := startNode(number)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.nodes = append(f.nodes, n)
	f.mu.Unlock()
	_, err = n.do(ctx, order{Do: "open", Place: f.place, Ahead: f.ahead, Skew: skew, Max: f.Requests, Days: f.days}, nil)
	return n, err
}

// openAll starts every process.
func (f *fleet) openAll(ctx context.Context) ([]*node, error) {
	nodes := make([]*node, f.Processes)
	return nodes, f.each(nodes, func(i int, _ *node) (err error) {
		nodes[i], err = f.open(ctx, i, 0)
		return err
	})
}

// each does something with every process at once.
func (f *fleet) each(nodes []*node, do func(int, *node) error) error {
	errs := make([]error, len(nodes))
	var group sync.WaitGroup
	for i, n := range nodes {
		group.Go(func() { errs[i] = do(i, n) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// drain has every process reserve and commit until it is refused, and returns what each was granted.
func (f *fleet) drain(ctx context.Context, nodes []*node, tell bool) ([]int64, error) {
	shares := make([]int64, len(nodes))
	return shares, f.each(nodes, func(i int, n *node) error {
		last, err := n.do(ctx, order{Do: "drain", Callers: f.Callers, Tell: tell}, f.hear)
		shares[i] = last.Granted
		f.add(last.tally)
		return err
	})
}

func (f *fleet) add(seen tally) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen.Granted += seen.Granted
	f.seen.Committed += seen.Committed
	f.seen.Early += seen.Early
	f.report.Unsaved += seen.Unsaved
}

// hear notes what a process tells at once.
func (f *fleet) hear(w word) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch w.Say {
	case "alert":
		f.alerts = append(f.alerts, w.ID)
	case "granted":
		f.told.Granted++
	case "committed":
		f.told.Committed++
	}
	if f.progress != nil {
		select {
		case f.progress <- struct{}{}:
		default:
		}
	}
}

// closeAll closes the tracker of every process.
func (f *fleet) closeAll(ctx context.Context, nodes []*node) error {
	return f.each(nodes, func(_ int, n *node) error {
		_, err := n.do(ctx, order{Do: "close"}, f.hear)
		n.end()
		return err
	})
}

// inStore is what a tracker finds that is opened now.
func (f *fleet) inStore(ctx context.Context) (status quota.QuotaStatus, past []quota.DaySummary, err error) {
	place := f.place
	ahead := func() time.Duration { return f.ahead }
	place.Address, place.Ahead = f.server.Address, ahead
	store, closeStore, err := f.subject.Open(ctx, place)
	if err != nil {
		return status, nil, err
	}
	if closeStore != nil {
		defer closeStore()
	}
	limit := quota.Limit{Max: f.Requests, Window: quota.Lifetime(), NoAlerts: true}
	if f.days {
		limit.Window = quota.Daily(nil)
	}
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: store, Quotas: []quota.Quota{{Name: hotQuota, Limits: []quota.Limit{limit}}},
		Clock: skewedClock{ahead}, OnAlert: func(quota.Alert) {}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return status, nil, err
	}
	err = tracker.Refresh(ctx)
	status, _ = tracker.Status(hotQuota)
	past = tracker.History(hotQuota)
	if what := tracker.Summary().Recovered; what != "" {
		err = errors.Join(err, fmt.Errorf("a state that nobody has damaged was recovered: %s", what))
	}
	return status, past, errors.Join(err, tracker.Verify(), tracker.Close())
}

// expect makes sure that this is how the hot quota stands.
func (f *fleet) expect(ctx context.Context, used, reserved int64) error {
	status, _, err := f.inStore(ctx)
	if err != nil {
		return err
	}
	if is := status.Limits[0]; is.Used != used || is.Reserved != reserved {
		return fmt.Errorf("the books say %d used and %d reserved, must be %d and %d", is.Used, is.Reserved, used, reserved)
	}
	return nil
}

// toldOnce makes sure that each of the three alerts was told once.
func (f *fleet) toldOnce() error {
	told := slices.Sorted(slices.Values(f.alerts))
	if each := slices.Compact(slices.Clone(told)); len(told) != 3 || len(each) != 3 {
		return fmt.Errorf("each of three alerts must be told once, these were: %q", told)
	}
	return nil
}
