package quota

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/gofrs/flock"
)

const lockPoll = 500 * time.Microsecond // how often a lock that somebody else holds is tried

// takeLock takes the lock on a file that Clear may have removed in the meantime.
func (f *JSONFile) takeLock(ctx context.Context, path string, shared bool) (*flock.Flock, error) {
	for {
		lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
		take := lock.TryLockContext
		if shared {
			take = lock.TryRLockContext
		}
		if _, err := take(ctx, lockPoll); err != nil {
			return nil, err
		}
		held, err := lock.Stat()
		if err == nil {
			var stands os.FileInfo
			if stands, err = f.files.stat(path); err == nil && os.SameFile(held, stands) {
				return lock, nil
			}
		}
		unlock(lock)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

// unlock gives a lock up. One that it could not give up would shut everybody out, this process too: it tries again.
func unlock(lock interface{ Unlock() error }) {
	for range 3 {
		if lock.Unlock() == nil {
			return
		}
	}
}

// lockOwner takes the lock that a tracker holds for its life: alone or beside others.
func (f *JSONFile) lockOwner(ctx context.Context, target string, alone bool) (*flock.Flock, error) {
	bounded, cancel := context.WithTimeout(ctx, ownerBound)
	defer cancel()
	owner, err := f.takeLock(bounded, target+ownerSuffix, !alone)
	switch {
	case err == nil:
		return owner, nil
	case ctx.Err() != nil:
		return nil, notSaved(fileError("lock", target+ownerSuffix, ctx.Err()))
	case !errors.Is(err, context.DeadlineExceeded):
		return nil, notSaved(fileError("lock", target+ownerSuffix, err))
	case alone:
		return nil, fmt.Errorf("%w: %s: close the other trackers first, or do not ask to own the file alone", ErrLocked, target)
	default:
		return nil, fmt.Errorf("%w: %s: a tracker with a FlushInterval, or Clear, has it for itself: close that tracker first, or wait", ErrLocked, target)
	}
}

// A lockSign is what the lock file says: the generation that is being saved, or has been. It is a hint for readers that
// do not take the lock and for whoever takes it next; what counts is the state file itself.
type lockSign struct {
	generation uint64
	saving     bool
}

const signSize = len("saving ") + 20 + len("\n")

func (s lockSign) text() string {
	word := "saved"
	if s.saving {
		word = "saving"
	}
	return fmt.Sprintf("%-6s %020d\n", word, s.generation)
}

// certain returns the highest generation that has been saved for certain; 0 when none is known.
func (s lockSign) certain() uint64 {
	if s.saving && s.generation > 0 {
		return s.generation - 1
	}
	return s.generation
}

// readSign reads the sign at one stroke. Anything else than a sign is generation 0, which no save has.
func readSign(file *os.File) (lockSign, string) {
	data := make([]byte, signSize)
	n, _ := file.ReadAt(data, 0)
	data = data[:n]
	word, number, _ := bytes.Cut(data, []byte(" "))
	var sign lockSign
	for _, digit := range bytes.TrimSpace(number) {
		if digit < '0' || digit > '9' || sign.generation > generationLimit/10 {
			return lockSign{}, string(data)
		}
		sign.generation = sign.generation*10 + uint64(digit-'0')
	}
	sign.saving = string(word) == "saving"
	if n != signSize || !sign.saving && string(word) != "saved" || sign.generation >= generationLimit {
		return lockSign{}, string(data)
	}
	return sign, string(data)
}
