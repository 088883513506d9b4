package quota

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// What stands beside the state. Locks are mandatory on Windows: the generation must not be in the locked file.
const (
	lockSuffix    = ".lock"
	signSuffix    = ".generation"
	ownerSuffix   = ".owner"
	backupSuffix  = ".bak"
	corruptSuffix = ".corrupt-"
)

const removesOpenFiles = false

type windowsTemp struct{ *os.File }

func newTempFile(path string) (tempFile, error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+tempSuffix+"*")
	if err != nil {
		return nil, err
	}
	return windowsTemp{file}, nil
}

func (t windowsTemp) Cleanup() error {
	_ = t.Close() // it may be closed already
	return os.Remove(t.Name())
}

// renameFile waits a moment for readers, which keep Windows from replacing the file that they have open.
func renameFile(from, to string) error {
	const (
		attempts         = 50
		pause            = 10 * time.Millisecond
		sharingViolation = syscall.Errno(32)
	)
	var err error
	for range attempts {
		if err = os.Rename(from, to); err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, sharingViolation) {
			return err
		}
		time.Sleep(pause)
	}
	return err
}

// openDir returns no file: a directory cannot be synced, and an open one could not be removed.
func openDir(string) (*os.File, error) { return nil, nil }

func syncDir(*os.File) error { return nil }

// linkUnsupported reports whether a file system without hard links said err.
func linkUnsupported(err error) bool {
	const invalidFunction, notSupported = syscall.Errno(1), syscall.Errno(50)
	return errors.Is(err, invalidFunction) || errors.Is(err, notSupported) || errors.Is(err, fs.ErrPermission)
}
