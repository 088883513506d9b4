package quota

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// remembered returns the newest generation that f knows, nil for none.
func (f *JSONFile) remembered() *snapshot {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.memory
}

func (f *JSONFile) remember(s *snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.memory = s
}

// generation returns a token that differs whenever the saved state is another one than peek returned with its token.
// false: it cannot be told. It reads the sign and, while a save runs, looks at the state's file; it waits for nobody.
func (f *JSONFile) generation() (uint64, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.sign == nil {
		return 0, false
	}
	sign, _ := readSign(f.sign)
	if !sign.saving || sign.generation == 0 {
		return sign.generation, sign.generation != 0
	}
	info, err := os.Stat(f.target)
	// Only these two can stand there now; an older inode may be in use again for a newer file.
	current := f.memory != nil && (f.memory.generation == sign.generation || f.memory.generation+1 == sign.generation)
	if current && err == nil && sameFile(info, f.memory.info) {
		return f.memory.generation, true
	}
	if err != nil {
		return uncertainToken, true
	}
	return uncertainToken | uint64(info.ModTime().UnixNano()) ^ uint64(info.Size()), true
}

// peek returns copies of the named books (nil: all) in the newest state that can be seen without a lock, and the token
// of that state. It never waits for a save. What it cannot read is left to the next save: the newest that f knows counts.
func (f *JSONFile) peek(names []string) (books map[string]*Book, token uint64, err error) {
	target, err := f.resolve()
	if err != nil {
		return nil, 0, err
	}
	token, known := f.generation()
	memory := f.remembered()
	if known && memory != nil && memory.generation == token {
		return memory.clones(names), token, nil
	}
	found, err := readState(target, memory)
	switch {
	case err == nil && f.rememberNewer(found):
		if token < uncertainToken {
			return found.clones(names), max(token, found.generation), nil
		}
		return found.clones(names), found.generation, nil
	case err == nil || memory != nil:
		if newest := f.remembered(); newest != nil {
			return newest.clones(names), token, nil
		}
		return map[string]*Book{}, token, nil // cleared in this moment
	case errors.Is(err, fs.ErrNotExist):
		return map[string]*Book{}, token, nil
	default:
		return nil, 0, err
	}
}

// rememberNewer keeps what was read without a lock, unless f knows something newer by now.
func (f *JSONFile) rememberNewer(found *snapshot) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.memory != nil && found.generation < f.memory.generation {
		return false
	}
	f.memory = found
	return true
}

// newest returns the newest state there is, and recovers it where it is damaged, missing or older than it was.
func (c *cycle) newest() (*snapshot, error) {
	f := c.f
	memory := f.remembered()
	info, err := os.Stat(c.target)
	if memory != nil && err == nil && sameFile(info, memory.info) && c.sign == (lockSign{memory.generation, false}) {
		return memory, nil
	}
	if c.sign.saving {
		f.unsettled = true // somebody died in a save, or could not sync the directory
	}
	if memory != nil && memory.info == nil && f.unsettled && errors.Is(err, fs.ErrNotExist) {
		return memory, nil // recovered before, and not yet saved
	}
	found, err := readState(c.target, memory)
	if !f.running() {
		memory = nil // nobody has it open: it is no more than a copy of what once stood there
	}
	switch {
	case err == nil && memory == nil && c.sign.certain() != found.generation:
		// Nobody can say for certain what was saved last, or it was another: the .bak must not be the newer one.
		if backup, _ := readState(c.target+backupSuffix, found); backup != nil && backup.generation > found.generation {
			found, err = c.recover(fmt.Errorf("%w: %s is at generation %d, which is older than the %d of its %s",
				ErrCorruptState, c.target, found.generation, backup.generation, backupSuffix), nil)
			break
		}
		found = c.notOlder(found, memory)
	case err == nil:
		found = c.notOlder(found, memory)
	case errors.Is(err, ErrCorruptState):
		found, err = c.recover(err, memory)
	case errors.Is(err, fs.ErrNotExist):
		found, err = c.recover(nil, memory)
	}
	if err != nil {
		return nil, err
	}
	f.remember(found)
	return found, nil
}

// notOlder returns found, or the memory of a running tracker when somebody has put an older state in place.
func (c *cycle) notOlder(found, memory *snapshot) *snapshot {
	newest := max(c.sign.certain(), found.generation)
	if memory != nil {
		newest = max(newest, memory.generation)
	}
	switch {
	case newest == found.generation:
		return found
	case memory != nil && memory.generation > found.generation:
		c.f.tell("%s is at generation %d, which is older than the %d saved last: went on from the memory of this program, generation %d",
			c.target, found.generation, newest, memory.generation)
		return c.f.unsaved(memory)
	default:
		c.f.tell("%s is at generation %d, which is older than the %d saved last: usage recorded since may be missing",
			c.target, found.generation, newest)
		return found
	}
}

// unsaved returns s as a state that does not stand in the file.
func (f *JSONFile) unsaved(s *snapshot) *snapshot {
	f.unsettled = true
	copied := *s
	copied.info = nil
	return &copied
}

// recover finds what takes the place of a state that is damaged, or, with damage nil, missing: the memory of a running
// tracker, the .bak, or nothing.
func (c *cycle) recover(damage error, memory *snapshot) (*snapshot, error) {
	f := c.f
	backup, err := readState(c.target+backupSuffix, memory)
	damagedBackup := errors.Is(err, ErrCorruptState)
	if err != nil && !damagedBackup && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if damage == nil && backup == nil && !damagedBackup && memory == nil {
		if lost := c.sign.certain(); lost > 0 {
			f.tell("%s and its %s are gone, generation %d had been saved: counting starts anew", c.target, backupSuffix, lost)
		}
		return &snapshot{fresh: true}, nil
	}
	what := c.target + " was missing"
	if damage != nil {
		what = damage.Error()
	}
	if f.isStrict() {
		if damage == nil {
			damage = fmt.Errorf("%w: %s", ErrCorruptState, what)
		}
		return nil, damage
	}
	if damage != nil {
		aside, err := c.setAside(c.target)
		if err != nil {
			return nil, err
		}
		what += ", set aside as " + aside
	}
	if damagedBackup {
		aside, err := c.setAside(c.target + backupSuffix)
		if err != nil {
			return nil, err
		}
		what += ", and so was its .bak, set aside as " + aside
	}
	switch {
	case memory != nil && (backup == nil || memory.generation >= backup.generation):
		f.tell("%s: went on from the memory of this program, generation %d", what, memory.generation)
		return f.unsaved(memory), nil
	case backup != nil:
		f.backup = backup.info
		f.tell("%s: went on from %s, generation %d, usage recorded after it may be missing",
			what, filepath.Base(c.target)+backupSuffix, backup.generation)
		return f.unsaved(backup), nil
	default:
		f.tell("%s: nothing could be recovered, counting starts anew", what)
		f.unsettled = true
		return &snapshot{fresh: true}, nil
	}
}
