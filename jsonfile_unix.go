//go:build !windows

package quota

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
)

// What stands beside the state. The generation is in the lock file itself.
const (
	lockSuffix    = ".lock"
	signSuffix    = lockSuffix
	ownerSuffix   = ".owner"
	backupSuffix  = ".bak"
	corruptSuffix = ".corrupt-"
)

const removesOpenFiles = true // also locked ones

// newTempFile creates a temporary file beside path. The sync and the rename are the caller's, step by step, because the
// .bak is put in place between them.
func newTempFile(path string) (tempFile, error) {
	// Without WithTempDir renameio would probe TMPDIR at every call.
	// WithStaticPermissions would leave the file and its descriptor behind when its fstat or fchmod fails.
	file, err := renameio.NewPendingFile(path+tempSuffix, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o600))
	if err != nil {
		return nil, err
	}
	return file, nil
}

func renameFile(from, to string) error { return os.Rename(from, to) }

func openDir(path string) (*os.File, error) { return os.Open(path) }

func syncDir(dir *os.File) error { return dir.Sync() }

// linkUnsupported reports whether a file system without hard links, or one that does not permit them, said err.
func linkUnsupported(err error) bool {
	for _, unsupported := range []error{syscall.EPERM, syscall.ENOTSUP, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EMLINK} {
		if errors.Is(err, unsupported) {
			return true
		}
	}
	return false
}
