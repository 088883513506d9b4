package quotatest

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"example.com/quota"
)

// TestPersistence tests an implementation of quota.Persistence, and of quota.SharedPersistence if it is one. It returns
// nil or all that is wrong, joined: each error names the rule that was broken, what was seen and what to do.
//
// newPersistence returns a handle to a store that is new and empty each time it is called. It is called some thirty
// times; what it opens is the caller's to close. The contexts passed to a store end after a minute. The last rules are
// tried only of stores that keep all others.
//
//	func TestStoreIsAPersistence(t *testing.T) {
//		err := quotatest.TestPersistence(func() (quota.Persistence, error) {
//			return Open(filepath.Join(t.TempDir(), "state"))
//		})
//		if err != nil {
//			t.Fatal(err)
//		}
//	}
//
// The states are real ones, saved by a tracker. They are compared by their JSON form, except that Load may return a
// higher Generation than was saved. Of a SharedPersistence, Update is also called from several goroutines and by two
// trackers at once, which have a handle each where the store is a Reopener, else one between them.
//
// The suite is one process, and has no hand on a server. It cannot see whether a store survives the end of its process, a
// power cut or a restart of the server, and what becomes of an Update when its connection is cut. That Tx.Now is the
// server's time it can tell only from two handles that differ; a store that shows the clock of this process passes where
// both do. Nor can it come between the last look at the time and the write.
func TestPersistence(newPersistence func() (quota.Persistence, error)) error {
	states, err := record()
	if err != nil {
		return fmt.Errorf("quotatest: the suite has no states to save: %w", err)
	}
	var errs []error
	for _, rule := range rules() {
		if rule.sound && len(errs) > 0 {
			continue
		}
		store, err := newPersistence()
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("quotatest: newPersistence failed: %w", err))...)
		}
		if store == nil {
			return errors.Join(append(errs, errors.New("quotatest: newPersistence returned nil, return a store"))...)
		}
		shared, isShared := store.(quota.SharedPersistence)
		if rule.shared && !isShared {
			continue
		}
		other := shared
		if again, ok := store.(Reopener); ok && rule.shared {
			if other, err = reopen(again); err != nil {
				return errors.Join(append(errs, err)...)
			}
		}
		if err := rule.test(&trial{store: store, shared: shared, other: other, states: states}); err != nil {
			errs = append(errs, fmt.Errorf("quotatest: %s: %w", rule.text, err))
		}
	}
	return errors.Join(errs...)
}

func reopen(store Reopener) (quota.SharedPersistence, error) {
	again, err := store.Reopen()
	if err != nil {
		return nil, fmt.Errorf("quotatest: Reopen failed: %w", err)
	}
	other, ok := again.(quota.SharedPersistence)
	if !ok {
		return nil, fmt.Errorf("quotatest: Reopen returned a %T, which is no SharedPersistence: return another handle", again)
	}
	return other, nil
}

// A rule is one thing that a store must do, tried on a store of its own.
type rule struct {
	text   string
	run    func(*trial) error
	shared bool // only a SharedPersistence must
	sound  bool // tried only of a store that keeps the rules before it
}

const patience = time.Minute

func (r rule) test(t *trial) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// A store that shares memory with its caller can make the books themselves panic.
	defer func() {
		if what := recover(); what != nil {
			err = fmt.Errorf("panic: %v\n%s", what, debug.Stack())
		}
	}()
	t.ctx = ctx
	return r.run(t)
}

func rules() []rule {
	return append([]rule{
		{text: "Load of a store that nothing was saved in returns nil, nil", run: loadsNothing},
		{text: "Load returns what was saved", run: remembers},
		{text: "Save replaces what was saved before", run: replaces},
		{text: "Save does not keep the state it is given", run: keepsNothing},
		{text: "Load's result belongs to the caller", run: lendsNothing},
		{text: "Save with a context that is done saves all or reports an error", run: savesWholly},
		{text: "Load with a context that is done loads all or reports an error", run: loadsWholly},
		{text: "any quota name can be saved", run: keepsNames},
	}, append(allShared(sharedRules(), togetherRules(), interruptedRules(), timeRules()),
		rule{text: "a large state can be saved", run: keepsMuch, sound: true},
		rule{text: "a tracker finds its usage again", run: servesTracker, sound: true},
	)...)
}

// A trial is one store that is being tested.
type trial struct {
	ctx        context.Context
	store      quota.Persistence
	shared     quota.SharedPersistence // nil: it is none
	other      quota.SharedPersistence // on the same state; the same as shared if there is none
	states     *states
	generation uint64 // the last one saved or loaded
}

// save saves s as the generation after the one that stands and returns its form.
func (t *trial) save(s *quota.State) (*form, error) {
	return t.saveWith(t.ctx, s)
}

func (t *trial) saveWith(ctx context.Context, s *quota.State) (*form, error) {
	s.Generation = t.generation + 1
	before, err := formOf(s)
	if err != nil {
		return nil, err
	}
	saveErr := t.store.Save(ctx, s)
	after, err := formOf(s)
	if err != nil {
		return nil, fmt.Errorf("Save has spoilt the state it was given: %w; only read it", err)
	}
	if wrong := exactly(before, after); wrong != "" {
		return nil, fmt.Errorf("Save has changed the state it was given: %s; only read it", wrong)
	}
	if saveErr == nil {
		t.generation = s.Generation
	}
	return before, saveErr
}

// mustSave is save where an error breaks the rule.
func (t *trial) mustSave(s *quota.State) (*form, error) {
	saved, err := t.save(s)
	if err != nil {
		return nil, fmt.Errorf("Save failed: %w", err)
	}
	return saved, nil
}

// load returns what the store holds; nil when it says that nothing was saved.
func (t *trial) load() (*quota.State, error) {
	s, err := t.store.Load(t.ctx)
	if err != nil {
		return nil, fmt.Errorf("Load failed: %w", err)
	}
	if s != nil {
		t.generation = max(t.generation, s.Generation)
	}
	return s, nil
}

// expect loads and compares with what was saved.
func (t *trial) expect(saved *form) error {
	s, err := t.load()
	if err != nil {
		return err
	}
	if s == nil {
		return errors.New("Load returned nil after a Save: keep the state until the next Save")
	}
	loaded, err := formOf(s)
	if err != nil {
		return err
	}
	if wrong := compare(saved, loaded); wrong != "" {
		return errors.New(wrong)
	}
	return nil
}

// begin makes sure that the store is empty, as a tracker does before its first Save, and saves a state.
func (t *trial) begin(s *quota.State) (*form, error) {
	if old, err := t.load(); err != nil {
		return nil, err
	} else if old != nil {
		return nil, errors.New("the store is not empty: newPersistence must return a new one each time")
	}
	return t.mustSave(s)
}

func loadsNothing(t *trial) error {
	for range 2 { // the first Load must not make a state of its own
		s, err := t.store.Load(t.ctx)
		if err != nil {
			return fmt.Errorf("Load returned an error: %w; an empty store is none", err)
		}
		if s != nil {
			return fmt.Errorf("Load returned a state with %d books: return nil, the tracker makes its own", len(s.Books))
		}
	}
	return nil
}

func remembers(t *trial) error {
	saved, err := t.begin(t.states.late())
	if err != nil {
		return err
	}
	if err := t.expect(saved); err != nil {
		return err
	}
	if err := t.expect(saved); err != nil {
		return fmt.Errorf("the second Load differs from the first: %w; Load must leave the state in the store", err)
	}
	return nil
}

func replaces(t *trial) error {
	if _, err := t.begin(t.states.early()); err != nil {
		return err
	}
	saved, err := t.mustSave(t.states.late())
	if err != nil {
		return err
	}
	if err := t.expect(saved); err != nil {
		return fmt.Errorf("after a second Save: %w", err)
	}
	fewer := t.states.late()
	delete(fewer.Books, userQuota)
	delete(fewer.History, freeQuota)
	if saved, err = t.mustSave(fewer); err != nil {
		return err
	}
	if err := t.expect(saved); err != nil {
		return fmt.Errorf("after a Save without a book and a history that were there: %w; drop what is not in the state", err)
	}
	return nil
}

func keepsNothing(t *trial) error {
	s := t.states.late()
	saved, err := t.begin(s)
	if err != nil {
		return err
	}
	for _, change := range t.states.changes() {
		if err := change.to(s); err != nil {
			return err
		}
		if err := t.expect(saved); err != nil {
			return fmt.Errorf("the caller has changed %s after Save, and Load shows it: %w; keep a copy, all the way down",
				change.what, err)
		}
	}
	return nil
}

func lendsNothing(t *trial) error {
	saved, err := t.begin(t.states.late())
	if err != nil {
		return err
	}
	mine, err := t.load()
	if err != nil {
		return err
	}
	other, err := t.load()
	if err != nil {
		return err
	}
	if mine == nil || other == nil {
		return errors.New("Load returned nil after a Save: keep the state until the next Save")
	}
	for _, change := range t.states.changes() {
		if err := change.to(mine); err != nil {
			return err
		}
		if err := t.expect(saved); err != nil {
			return fmt.Errorf("the caller has changed %s of a loaded state, and the store shows it: %w; "+
				"return a copy, all the way down", change.what, err)
		}
		loaded, err := formOf(other)
		if err != nil {
			return err
		}
		if wrong := compare(saved, loaded); wrong != "" {
			return fmt.Errorf("the caller has changed %s of a loaded state, and another loaded before shows it: %s; "+
				"return a new state each time", change.what, wrong)
		}
	}
	return nil
}

func savesWholly(t *trial) error {
	before, err := t.begin(t.states.early())
	if err != nil {
		return err
	}
	done, cancel := context.WithCancel(t.ctx)
	cancel()
	wanted, saveErr := t.saveWith(done, t.states.late())
	if wanted == nil {
		return saveErr
	}
	err = t.expect(wanted)
	if saveErr != nil && err != nil {
		err = t.expect(before)
	}
	switch {
	case err != nil && saveErr == nil:
		return fmt.Errorf("Save returned nil, but has not saved: %w; return the context's error", err)
	case err != nil:
		return fmt.Errorf("Save returned an error (%w) and left neither the old nor the new state: %w; save all or nothing",
			saveErr, err)
	}
	again, err := t.save(t.states.late())
	if err != nil {
		return fmt.Errorf("the next Save fails too: %w; the store must recover", err)
	}
	return t.expect(again)
}

func loadsWholly(t *trial) error {
	saved, err := t.begin(t.states.late())
	if err != nil {
		return err
	}
	done, cancel := context.WithCancel(t.ctx)
	cancel()
	switch s, err := t.store.Load(done); {
	case err != nil:
	case s == nil:
		return errors.New("Load returned nil, nil, which says that nothing was ever saved: return the context's error")
	default:
		loaded, err := formOf(s)
		if err != nil {
			return err
		}
		if wrong := compare(saved, loaded); wrong != "" {
			return errors.New(wrong)
		}
	}
	return t.expect(saved)
}

func keepsNames(t *trial) error {
	saved, err := t.begin(t.states.named())
	if err != nil {
		return fmt.Errorf("%w; quota names are any UTF-8 without control characters, up to 256 bytes", err)
	}
	if err := t.expect(saved); err != nil {
		return fmt.Errorf("%w; keep names byte for byte", err)
	}
	return nil
}

func keepsMuch(t *trial) error {
	large, err := t.states.large()
	if err != nil {
		return err
	}
	saved, err := t.begin(large)
	if err != nil {
		return err
	}
	return t.expect(saved)
}

func servesTracker(t *trial) error {
	const name, used, more = sumQuota, 3, 4
	for _, n := range []int64{used, more} {
		tracker, err := newTracker(t.ctx, t.store, NewClock(t.states.end), sampleQuotas())
		if err != nil {
			return fmt.Errorf("quota.New failed: %w", err)
		}
		err = tracker.RecordUsage(t.ctx, name, quota.Requests(n))
		if err := errors.Join(err, tracker.Close()); err != nil {
			return fmt.Errorf("a tracker cannot record usage: %w", err)
		}
	}
	tracker, err := newTracker(t.ctx, t.store, NewClock(t.states.end), sampleQuotas())
	if err != nil {
		return fmt.Errorf("quota.New failed: %w", err)
	}
	status, _ := tracker.Status(name)
	if err := tracker.Close(); err != nil {
		return err
	}
	if len(status.Limits) != 1 || status.Limits[0].Used != used+more {
		return fmt.Errorf("of %d requests that two trackers have recorded a third finds %v", used+more, status.Limits)
	}
	return nil
}
