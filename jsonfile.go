package quota

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// DefaultPath is where a tracker without a Persistence keeps its state, below the working directory.
const DefaultPath = ".memory/quota_state.json"

const (
	lockBound  = 10 * time.Second       // the longest wait for the lock of the file
	ownerBound = 100 * time.Millisecond // the longest wait for the lock that trackers hold for their life
)

// A JSONFile keeps the state in one readable JSON file that several trackers and several processes may use at once. It
// is a SharedPersistence, and safe for concurrent use.
//
// Each save writes a temporary file beside the state, syncs it, renames it over the state and syncs the directory, and
// only then returns. Beside a state quota_state.json stand:
//
//   - quota_state.json.bak: the generation before
//   - quota_history.json: the finished days (for a state whose name does not end in _state.json: the name and ".history")
//   - quota_state.json.lock, quota_state.json.owner: advisory locks. Do not delete them while a tracker runs
//   - quota_state.json.corrupt-TIME: what could not be read. Nothing reads it again
//
// Directories it creates have mode 0700, files 0600. A path that is a symbolic link is resolved once, at the first use.
// Where the file system has no hard links there is no .bak: exFAT, some network file systems.
//
// A state that cannot be read, or is older than its .bak, is set aside and the .bak takes its place, or the memory of a
// running tracker where that is newer; what happened is logged and stands in Summary.Recovered. With Strict it is
// ErrCorruptState instead. A state written by a newer version is ErrNewerState and never touched. Whoever edits the file
// by hand, with no tracker running, removes its line "checksum".
//
// What is weaker elsewhere than on Linux: on Windows the replacement is not documented to be atomic, the directory
// cannot be synced, so that a power cut may undo the last saves, and a save waits a moment for readers that have the
// file open. On macOS the sync reaches the drive's own cache only where the file system knows F_FULLFSYNC. On
// NFS and other network file systems neither the locks between machines nor the rename can be relied on: use a server
// (see SharedPersistence) instead. A single file mounted into a container cannot be replaced: mount its directory.
type JSONFile struct {
	path  string
	files fileOps
	bound time.Duration
	limit int           // bytes of a file
	turn  chan struct{} // holds one token: whoever has put it there runs a cycle

	// Of the cycle that runs.
	unsettled     bool        // what stands in the file may not be durable: publish a generation even without a change
	pastUnsettled bool        // the same of the history file
	perhaps       *snapshot   // what may stand in the file: its rename has failed, and so has the look
	backup        os.FileInfo // the .bak that is known not to be of a newer version
	room          []byte      // what the last save has written, to be written over

	displaced atomic.Pointer[os.File] // the generation that a save has displaced, see free

	mu       sync.RWMutex // guards what follows; not held while anything is written or synced
	strict   bool
	target   string // path without symbolic links; "": not yet resolved
	users    int    // trackers and running calls: the last one closes the descriptors
	trackers int    // that have it open
	dir      *os.File
	sign     *os.File // the file with the generation, see lockSign
	memory   *snapshot
	past     *pastDays
	loaded   *uint64 // the generation last loaded or saved by Load and Save
	report   string
	now      func() time.Time
	logger   *slog.Logger
	later    func(log func()) // takes what is to be logged where nothing waits for it; nil: it is logged at once
}

var (
	_ Persistence       = (*JSONFile)(nil)
	_ SharedPersistence = (*JSONFile)(nil)
)

// NewJSONFile returns the state kept at path. Nothing is read or written before it is used. Relative paths count from
// the working directory at the first use.
func NewJSONFile(path string) *JSONFile {
	return &JSONFile{
		path:   path,
		files:  systemFiles(),
		bound:  lockBound,
		limit:  stateLimit,
		turn:   make(chan struct{}, 1),
		now:    time.Now,
		logger: slog.Default(),
	}
}

// Strict makes a state that cannot be read, or that is missing beside its .bak or older than it, an error
// (ErrCorruptState) instead of something to recover from. It changes f and returns it; call it before f is used.
func (f *JSONFile) Strict() *JSONFile {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.strict = true
	return f
}

// Load returns the saved state, finished days included; nil, nil when nothing has been saved yet. The result belongs to
// the caller. A damaged state is recovered from as the type says, but nothing is written before the next save.
func (f *JSONFile) Load(ctx context.Context) (*State, error) {
	target, err := f.resolve()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Dir(target)); errors.Is(err, fs.ErrNotExist) && !f.running() {
		f.setLoaded(0)
		return nil, nil
	}
	var state *State
	err = f.cycle(ctx, func(c *cycle) error {
		base, err := c.newest()
		if err != nil {
			return err
		}
		past, err := c.pastDays()
		if err != nil {
			return err
		}
		f.setLoaded(base.generation)
		days := mergeHistory(past.days, base.days)
		if base.fresh && len(days) == 0 {
			return nil
		}
		state = &State{
			Version:    stateVersion,
			Generation: base.generation,
			UpdatedAt:  base.updatedAt,
			Books:      base.clones(nil),
			History:    days,
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrCorruptState) && !errors.Is(err, ErrNewerState) {
		err = fmt.Errorf("quota: load the state: %w", err)
	}
	return state, err
}

// Save makes s the saved state, durably, under a generation of its own: that of s or the next one, whichever is higher.
// s.History goes to the history file. When the generation in the file is not the one that f has last loaded or saved by
// Load and Save, somebody else has changed the state and Save returns ErrConflict. An error that matches ErrNotSaved
// leaves either generation.
func (f *JSONFile) Save(ctx context.Context, s *State) error {
	switch {
	case s == nil:
		return fmt.Errorf("%w: %s: there is no state to save", ErrNotSaved, f.path)
	case s.Version > stateVersion:
		return fmt.Errorf("%w: %w (version %d)", ErrNotSaved, ErrNewerState, s.Version)
	case s.Version != 0 && s.Version != stateVersion:
		return fmt.Errorf("%w: %s: states of version %d are not written", ErrNotSaved, f.path, s.Version)
	}
	next := &snapshot{updatedAt: s.UpdatedAt, books: make(map[string]savedBook, len(s.Books))}
	finished := map[string][]DaySummary{}
	for name, book := range s.Books {
		if book == nil {
			continue
		}
		saved, days, err := keep(name, book, true)
		if err != nil {
			return err
		}
		next.books[name] = saved
		if len(days) > 0 {
			finished[name] = days
		}
	}
	err := f.cycle(ctx, func(c *cycle) error {
		base, err := c.newest()
		if err != nil {
			return err
		}
		if !f.continues(base) {
			return fmt.Errorf("%w: %s is at generation %d", ErrConflict, c.target, base.generation)
		}
		days := s.History
		if len(finished) > 0 {
			days = mergeHistory(days, finished)
		}
		if err := c.saveHistory(days); err != nil {
			return err
		}
		saved, err := c.save(base, next, s.Generation)
		if saved {
			f.setLoaded(next.generation)
		}
		return err
	})
	if err != nil && !errors.Is(err, ErrConflict) {
		return notSaved(err)
	}
	return err
}

// Update implements SharedPersistence. An error of fn is returned as it is, and nothing is saved; an fn that changes
// nothing writes nothing. Every other error matches ErrNotSaved. Tx.Now stays zero.
//
// A later Save without a Load in between returns ErrConflict.
func (f *JSONFile) Update(ctx context.Context, names []string, fn func(*Tx) error) error {
	var refused error
	err := f.cycle(ctx, func(c *cycle) error {
		base, err := c.newest()
		if err != nil {
			return err
		}
		tx := &Tx{Books: base.clones(names)}
		handed := maps.Clone(tx.Books)
		if refused = fn(tx); refused != nil {
			return nil
		}
		// A tracker that knows this file only through another Persistence does not see its history: the days stay.
		changes, err := base.changes(tx.Books, handed, names, f.running())
		if err != nil {
			return err
		}
		if changes == nil && !f.unsettled {
			return nil
		}
		if err := c.publish(base, changes); err != nil {
			return err
		}
		changes.handOver(tx.Books)
		return nil
	})
	if refused != nil {
		return refused
	}
	if err != nil {
		return notSaved(err)
	}
	return nil
}

// Clear removes everything that has been kept: the state, its .bak, the history, locks, leftovers and what has been set
// aside, but not the directory. It refuses with ErrLocked while any tracker has the state open.
func (f *JSONFile) Clear(ctx context.Context) error {
	target, err := f.resolve()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Dir(target)); errors.Is(err, fs.ErrNotExist) {
		f.forget()
		return nil
	}
	owner, err := f.lockOwner(ctx, target, true)
	if err != nil {
		return err
	}
	defer unlock(owner)
	return f.cycle(ctx, func(c *cycle) error {
		if err := c.clear(); err != nil {
			return err
		}
		f.forget()
		return nil
	})
}

// open is how a tracker takes the file into use: alone, or beside other trackers. It proves by one save that the place
// works. release ends the use; it may be called twice.
func (f *JSONFile) open(
	ctx context.Context, alone bool, now func() time.Time, logger *slog.Logger,
) (release func(), err error) {
	target, err := f.resolve()
	if err != nil {
		return nil, err
	}
	f.retain()
	defer func() {
		if err != nil {
			f.letGo()
		}
	}()
	f.mu.Lock()
	f.now, f.logger = now, logger
	f.mu.Unlock()
	if err := makeDirs(filepath.Dir(target), f.files.syncDir); err != nil {
		return nil, notSaved(err)
	}
	if info, err := os.Stat(target); err == nil && !info.Mode().IsRegular() {
		return nil, notSaved(fileError("read", target, errNotAFile))
	}
	owner, err := f.lockOwner(ctx, target, alone)
	if err != nil {
		return nil, err
	}
	err = f.cycle(ctx, func(c *cycle) error {
		c.sweep()
		base, err := c.newest()
		if err != nil {
			return err
		}
		if _, err := c.pastDays(); err != nil {
			return err
		}
		return c.publish(base, nil)
	})
	if err != nil {
		unlock(owner)
		if errors.Is(err, ErrCorruptState) || errors.Is(err, ErrNewerState) {
			return nil, err
		}
		return nil, notSaved(err)
	}
	f.mu.Lock()
	f.trackers++
	f.mu.Unlock()
	return sync.OnceFunc(func() {
		f.mu.Lock()
		if f.trackers--; f.trackers == 0 {
			f.report = ""
		}
		f.mu.Unlock()
		unlock(owner)
		f.letGo()
	}), nil
}

// recovered tells what went wrong with the saved state since f was opened, and what may be missing.
func (f *JSONFile) recovered() string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.report
}

// tell reports something that an operator should know about the saved state.
func (f *JSONFile) tell(format string, args ...any) {
	text := printable(fmt.Sprintf(format, args...))
	f.mu.Lock()
	logger, later := f.logger, f.later
	if len(f.report) < maxReport {
		if f.report != "" {
			f.report += "; "
		}
		f.report += text
	}
	f.mu.Unlock()
	log := func() { logger.Error("quota: the saved state had to be recovered", "what", text) }
	if later == nil {
		log()
		return
	}
	later(log)
}

// logLater makes later take what is to be logged: a save is at work when something has to be recovered, and a handler of
// the log may call the tracker that waits for it.
func (f *JSONFile) logLater(later func(log func())) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.later = later
}

const maxReport = 4 << 10

func (f *JSONFile) running() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.trackers > 0
}

func (f *JSONFile) isStrict() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.strict
}

func (f *JSONFile) lastLoaded() *uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.loaded
}

// continues reports whether base is what f has last loaded or saved, also where it is not known whether it was saved.
func (f *JSONFile) continues(base *snapshot) bool {
	if f.perhaps != nil && f.perhaps.says(base) {
		return true
	}
	loaded := f.lastLoaded()
	return loaded == nil && base.fresh || loaded != nil && *loaded == base.generation
}

func (f *JSONFile) setLoaded(generation uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loaded = &generation
}

func (f *JSONFile) time() time.Time {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.now().UTC()
}

// forget drops what f remembers of a state that has been cleared.
func (f *JSONFile) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.memory, f.past, f.loaded, f.report = nil, nil, nil, ""
}

// resolve returns the path of the state without symbolic links, also of one that points to nothing yet.
func (f *JSONFile) resolve() (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.target != "" {
		return f.target, nil
	}
	if f.path == "" {
		return "", fmt.Errorf("%w: the path of the state is empty", ErrInvalidConfig)
	}
	path, err := filepath.Abs(f.path)
	if err != nil {
		return "", fmt.Errorf("%w: resolve the path of the state: %w", ErrInvalidConfig, err)
	}
	const mostLinks = 40
	for range mostLinks {
		if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			path = filepath.Join(dir, filepath.Base(path))
		}
		dest, err := os.Readlink(path)
		if err != nil {
			f.target = path
			return path, nil
		}
		if !filepath.IsAbs(dest) {
			dest = filepath.Join(filepath.Dir(path), dest)
		}
		path = dest
	}
	return "", fmt.Errorf("%w: %s: too many symbolic links", ErrInvalidConfig, f.path)
}

// keep encodes a copy of a book for the file: with toHistory without its finished days, which it returns.
func keep(name string, book *Book, toHistory bool) (savedBook, []DaySummary, error) {
	if !utf8.ValidString(name) {
		return savedBook{}, nil, fmt.Errorf("%w: the name %q is not valid UTF-8", ErrNotSaved, name)
	}
	book = book.clone()
	var days []DaySummary
	if toHistory {
		days = book.takeFinished()
	}
	saved, err := encodeBook(name, book)
	if err != nil {
		return savedBook{}, nil, fmt.Errorf("%w: encode the book of %q: %w", ErrNotSaved, name, err)
	}
	return saved, days, nil
}

// notSaved gives err the mark of a save that failed.
func notSaved(err error) error {
	if errors.Is(err, ErrNotSaved) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotSaved, err)
}

// fileError names the operation and the path of a failed file operation once, whatever the error says itself.
func fileError(op, path string, err error) error {
	var pathError *fs.PathError
	var linkError *os.LinkError
	switch {
	case errors.As(err, &pathError):
		err = pathError.Err
	case errors.As(err, &linkError):
		err = linkError.Err
	}
	return fmt.Errorf("%s %s: %w", op, path, err)
}
