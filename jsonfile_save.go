package quota

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"syscall"
)

// fileOps are the steps of a save; tests put failing ones in their place.
type fileOps struct {
	create  func(path string) (tempFile, error) // a temporary file beside path
	link    func(from, to string) error
	rename  func(from, to string) error
	syncDir func(dir *os.File) error
	stat    func(path string) (os.FileInfo, error)
	mark    func(sign *os.File, text string) error // writes the lock file's text
}

// A tempFile is what replaces a file once it is complete. Cleanup closes and removes it.
type tempFile interface {
	Name() string
	Write(p []byte) (int, error)
	Sync() error
	Stat() (os.FileInfo, error)
	Close() error
	Cleanup() error
}

func systemFiles() fileOps {
	return fileOps{
		create:  newTempFile,
		link:    os.Link,
		rename:  renameFile,
		syncDir: syncDir,
		stat:    os.Stat,
		mark: func(sign *os.File, text string) error {
			_, err := sign.WriteAt([]byte(text), 0)
			return err
		},
	}
}

// A cycle is one turn with the state: nobody else in this process, and nobody else who respects the lock, is in one.
type cycle struct {
	f      *JSONFile
	target string
	sign   lockSign
	text   string // of the lock file, as it was found
}

// cycle runs do with the state to itself. The wait for it ends with ctx, and after f.bound in any case.
func (f *JSONFile) cycle(ctx context.Context, do func(*cycle) error) error {
	target, err := f.resolve()
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, f.bound)
	defer cancel()
	if ctx.Err() != nil {
		return notSaved(fileError("lock", target+lockSuffix, ctx.Err()))
	}
	select {
	case f.turn <- struct{}{}:
	case <-bounded.Done():
		return f.notLocked(ctx, target, "another call in this process holds the file")
	}
	defer func() { <-f.turn }()
	f.retain()
	defer f.letGo()
	if !f.running() {
		defer f.free()
	}

	if err := f.openDir(target); err != nil {
		return err
	}
	lock, err := f.takeLock(bounded, target+lockSuffix, false)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return f.notLocked(ctx, target, "another process or tracker holds it")
	}
	if err != nil {
		return notSaved(fileError("lock", target+lockSuffix, err))
	}
	defer unlock(lock)

	c := &cycle{f: f, target: target}
	if err := f.openSign(target + signSuffix); err != nil {
		return notSaved(fileError("open", target+signSuffix, err))
	}
	c.sign, c.text = readSign(f.sign)
	return do(c)
}

// notLocked says why the lock was not to be had: the caller's context, or the bound.
func (f *JSONFile) notLocked(ctx context.Context, target, who string) error {
	if ctx.Err() != nil {
		return notSaved(fmt.Errorf("lock %s: %s: %w", target+lockSuffix, who, ctx.Err()))
	}
	return notSaved(fmt.Errorf("lock %s: not to be had within %v, %s", target+lockSuffix, f.bound, who))
}

// retain keeps the descriptors open until the matching letGo.
func (f *JSONFile) retain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users++
}

func (f *JSONFile) letGo() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users--; f.users == 0 {
		f.free()
		closeFile(f.dir)
		closeFile(f.sign)
		f.dir, f.sign, f.room = nil, nil, nil
	}
}

// free gives up the generation that the last save has displaced. Whoever holds it open does it, not the save: to free what
// a file occupies takes the file system a while, for which nobody who waits for the save has to wait.
func (f *JSONFile) free() { closeFile(f.displaced.Swap(nil)) }

func closeFile(file *os.File) {
	if file != nil {
		_ = file.Close()
	}
}

// openDir makes sure that f.dir is the directory that the path names now; it creates one that is missing.
func (f *JSONFile) openDir(target string) error {
	dir := filepath.Dir(target)
	stands, err := os.Stat(dir)
	if err == nil && isOpen(f.dir, stands) {
		return nil
	}
	if err := makeDirs(dir, f.files.syncDir); err != nil {
		return notSaved(err)
	}
	file, err := openDir(dir)
	if err != nil {
		return notSaved(fileError("open", dir, err))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	closeFile(f.dir)
	f.dir = file
	return nil
}

// openSign does the same for the file with the generation.
func (f *JSONFile) openSign(path string) error {
	stands, err := os.Stat(path)
	if err == nil && isOpen(f.sign, stands) {
		return nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	closeFile(f.sign)
	f.sign = file
	return nil
}

func (f *JSONFile) closeSign() {
	f.mu.Lock()
	defer f.mu.Unlock()
	closeFile(f.sign)
	f.sign = nil
}

func isOpen(file *os.File, stands os.FileInfo) bool {
	if file == nil {
		return false
	}
	info, err := file.Stat()
	return err == nil && os.SameFile(info, stands)
}

// makeDirs creates what is missing of dir, and makes that durable.
func makeDirs(dir string, sync func(*os.File) error) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return fileError("use", dir, syscall.ENOTDIR)
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fileError("use", dir, err)
	}
	parent := filepath.Dir(dir)
	if err := makeDirs(parent, sync); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fileError("create", dir, err)
	}
	file, err := openDir(parent)
	if err != nil {
		return fileError("open", parent, err)
	}
	defer closeFile(file)
	if err := sync(file); err != nil {
		return fileError("sync the directory", parent, err)
	}
	return nil
}

// changes is what an Update has done to a snapshot.
type changes struct {
	books    map[string]savedBook
	others   bool // they are not of the same names as before
	finished map[string][]DaySummary
	written  []string
}

// changes compares the books after an Update with those handed out for it; nil: nothing has changed. With toHistory
// their finished days leave the books.
func (s *snapshot) changes(after, handed map[string]*Book, names []string, toHistory bool) (*changes, error) {
	var made *changes
	change := func() *changes {
		if made == nil {
			made = &changes{books: maps.Clone(s.books), finished: map[string][]DaySummary{}}
			if made.books == nil {
				made.books = map[string]savedBook{}
			}
		}
		return made
	}
	named := make(map[string]struct{}, len(names))
	for _, name := range names {
		named[name] = struct{}{}
	}
	for name, book := range after {
		if _, ok := named[name]; names != nil && !ok {
			return nil, fmt.Errorf("%w: an update of %q must not add the book of %q", ErrInvalidRequest, names, name)
		}
		if book == nil || book == handed[name] && !book.changed {
			continue
		}
		saved, days, err := keep(name, book, toHistory)
		if err != nil {
			return nil, err
		}
		if _, known := s.books[name]; !known {
			change().others = true
		}
		change().books[name] = saved
		made.written = append(made.written, name)
		if len(days) > 0 {
			made.finished[name] = days
		}
	}
	for name := range handed {
		if after[name] == nil {
			delete(change().books, name)
			made.others = true
		}
	}
	return made, nil
}

// handOver leaves the caller's books as they have been saved.
func (c *changes) handOver(books map[string]*Book) {
	if c == nil {
		return
	}
	for _, name := range c.written {
		if len(c.finished[name]) > 0 {
			books[name].takeFinished()
		}
		books[name].changed = false
	}
}

// publish saves base with what has changed in it: the finished days first, then the state.
func (c *cycle) publish(base *snapshot, changes *changes) error {
	next := &snapshot{books: base.books, names: base.names}
	days := base.days
	if changes != nil {
		next.books = changes.books
		if changes.others {
			next.names = nil
		}
		days = mergeHistory(days, changes.finished)
	}
	if len(days) > 0 {
		past, err := c.pastDays()
		if err != nil {
			return notSaved(err)
		}
		if err := c.saveHistory(mergeHistory(past.days, days)); err != nil {
			return notSaved(err)
		}
	}
	_, err := c.save(base, next, 0)
	return err
}

// save makes next the state, under a generation that is at least generation. applied tells that it stands in the file,
// although an error says that it may not be durable.
func (c *cycle) save(base, next *snapshot, generation uint64) (applied bool, err error) {
	f := c.f
	number := max(base.generation, c.sign.certain()) + 1
	if next.generation = max(generation, number); next.generation >= generationLimit {
		return false, fmt.Errorf("%w: %s: generation %d is too high to be read again: with no tracker running, remove its "+
			"line \"checksum\", set its generation to 1, and delete its %s and its %s", ErrNotSaved, c.target, next.generation,
			backupSuffix, signSuffix)
	}
	if next.updatedAt.IsZero() {
		next.updatedAt = f.time()
	}
	if err := next.encodeMissing(); err != nil {
		return false, notSaved(err)
	}
	data := next.encode(f.room)
	f.room = data
	if len(data) > f.limit {
		return false, fmt.Errorf("%w: %s: the state has %d bytes, more than the %d that are read again",
			ErrNotSaved, c.target, len(data), f.limit)
	}
	marked := false
	_, err = c.replace(c.target, data, func(temp os.FileInfo) error {
		next.info = temp
		if err := c.keepBackup(base); err != nil {
			return err
		}
		// Readers without the lock look twice from here on: at any instant the file may be the old or the new one.
		marked = true
		// After a generation that leaves some out, number still says which one has been saved for certain.
		if err := f.files.mark(f.sign, lockSign{number, true}.text()); err != nil {
			return fileError("write", c.target+signSuffix, err)
		}
		return nil
	})
	if err != nil {
		applied = marked && c.unmark(next)
		return applied, notSaved(err)
	}
	f.remember(next)
	f.unsettled, f.perhaps = true, nil
	if err := c.syncDir(c.target); err != nil {
		return true, notSaved(err)
	}
	f.unsettled = false
	// Should this fail, readers look twice until the next save; the state itself is durable.
	_ = f.files.mark(f.sign, lockSign{next.generation, false}.text())
	return true, nil
}

// syncDir makes the rename to path durable.
func (c *cycle) syncDir(path string) error {
	if err := c.f.files.syncDir(c.f.dir); err != nil {
		return fileError("sync the directory", filepath.Dir(path), err)
	}
	// On xfs a directory's sync succeeds after the file system has shut itself down; a look at the file does not.
	if _, err := c.f.files.stat(path); err != nil {
		return fileError("stat", path, err)
	}
	return nil
}

// unmark takes the mark of a save back that did not come about. It reports whether the rename has failed and happened
// all the same: the save is then applied.
func (c *cycle) unmark(next *snapshot) (applied bool) {
	stands, err := c.f.files.stat(c.target)
	if err == nil && os.SameFile(stands, next.info) {
		c.f.remember(next)
		c.f.unsettled = true
		return true
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.f.unsettled, c.f.perhaps = true, next // nobody knows: the next cycle looks
		return false
	}
	text := c.text
	if len(text) != signSize {
		text = lockSign{}.text()
	}
	_ = c.f.files.mark(c.f.sign, text)
	return false
}

// replace puts data in the place of the file at path: a temporary file, its sync, what ready does, the rename. Each
// attempt takes a new temporary file: the pages of one whose sync has failed may be marked clean without having been
// written. The sync of the directory is the caller's.
func (c *cycle) replace(path string, data []byte, ready func(temp os.FileInfo) error) (info os.FileInfo, err error) {
	files := c.f.files
	temp, err := files.create(path)
	if err != nil {
		return nil, fileError("create a temporary file beside", path, err)
	}
	defer func() {
		if err != nil {
			_ = temp.Cleanup()
		}
	}()
	if _, err := temp.Write(data); err != nil {
		return nil, fileError("write", temp.Name(), err)
	}
	if err := temp.Sync(); err != nil {
		return nil, fileError("sync", temp.Name(), err)
	}
	if info, err = temp.Stat(); err != nil {
		return nil, fileError("stat", temp.Name(), err)
	}
	if err := temp.Close(); err != nil {
		return nil, fileError("close", temp.Name(), err)
	}
	if ready != nil {
		if err := ready(info); err != nil {
			return nil, err
		}
	}
	if err := files.rename(temp.Name(), path); err != nil {
		return nil, mounted(fileError("rename a temporary file to", path, err))
	}
	return info, nil
}

// mounted adds what to do to the error of a file that is mounted alone.
func mounted(err error) error {
	if errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EXDEV) {
		return fmt.Errorf("%w: a single file that is mounted cannot be replaced, mount its directory instead", err)
	}
	return err
}

// keepBackup makes .bak a second name of the state that is about to be replaced. The state keeps its own throughout.
func (c *cycle) keepBackup(base *snapshot) error {
	if base.info == nil {
		return nil // nothing stands in the state's place, or nothing that should
	}
	f, path := c.f, c.target+backupSuffix
	var displaced *os.File
	defer func() { closeFile(displaced) }()
	if info, err := os.Lstat(path); err == nil {
		if os.SameFile(info, base.info) {
			return nil
		}
		if !sameFile(info, f.backup) && isNewer(path) {
			return fmt.Errorf("%w: %s", ErrNewerState, path)
		}
		if removesOpenFiles && info.Mode().IsRegular() {
			displaced, _ = os.Open(path) // if it cannot be opened, the rename frees it
		}
	}
	temp := backupTemp(c.target)
	err := f.files.link(c.target, temp)
	if errors.Is(err, fs.ErrExist) {
		if err := os.Remove(temp); err != nil {
			return fileError("remove", temp, err)
		}
		err = f.files.link(c.target, temp)
	}
	if linkUnsupported(err) {
		return nil
	}
	if err != nil {
		return mounted(fileError("link "+c.target+" to", temp, err))
	}
	if err := f.files.rename(temp, path); err != nil {
		_ = os.Remove(temp)
		return fileError("rename a temporary file to", path, err)
	}
	f.backup = base.info
	displaced = f.displaced.Swap(displaced)
	return nil
}
