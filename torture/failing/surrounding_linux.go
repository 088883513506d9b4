//go:build amd64 || arm64

package failing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Places that go bad.
const (
	fullDisk    = "the disk has 64 KiB and is full"
	readOnly    = "the directory has become read-only"
	mountedFile = "the state is a mounted file"
)

// A surrounding is a place for the state that goes bad and becomes good again.
type surrounding struct {
	place   string // "": none
	dir     string // of the state
	ballast string // the file that fills the disk
	mounted []string
}

func newSurrounding(place, dir string) *surrounding {
	return &surrounding{place: place, dir: dir, ballast: filepath.Join(dir, "ballast")}
}

// prepare makes the place, while it is good.
func (s *surrounding) prepare() error {
	if s.place != fullDisk {
		return nil
	}
	kept := map[string][]byte{}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if kept[entry.Name()], err = os.ReadFile(filepath.Join(s.dir, entry.Name())); err != nil {
			return err
		}
	}
	if err := unix.Mount("tmpfs", s.dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		return fmt.Errorf("mounting a small disk: %w", err)
	}
	s.mounted = append(s.mounted, s.dir)
	for name, data := range kept {
		if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// spoil makes it bad.
func (s *surrounding) spoil() error {
	switch s.place {
	case fullDisk:
		return s.fill()
	case readOnly:
		// What is open stays writable, as on a disk that the kernel has made read-only.
		if err := s.bind(s.dir); err != nil {
			return err
		}
		return unix.Mount("", s.dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	case mountedFile:
		path := filepath.Join(s.dir, "quota_state.json")
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return nil // it is missing on purpose
		}
		return s.bind(path)
	}
	return nil
}

func (s *surrounding) bind(path string) error {
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", path, err)
	}
	s.mounted = append(s.mounted, path)
	return nil
}

// fill writes until nothing more fits.
func (s *surrounding) fill() error {
	file, err := os.OpenFile(s.ballast, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	for {
		if _, err := file.Write(make([]byte, 4096)); errors.Is(err, unix.ENOSPC) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// lift makes it good again.
func (s *surrounding) lift() error {
	switch s.place {
	case fullDisk:
		return os.RemoveAll(s.ballast)
	case readOnly, mountedFile:
		return s.unmount()
	}
	return nil
}

func (s *surrounding) unmount() error {
	var errs []error
	for len(s.mounted) > 0 {
		last := len(s.mounted) - 1
		errs = append(errs, unix.Unmount(s.mounted[last], unix.MNT_DETACH))
		s.mounted = s.mounted[:last]
	}
	return errors.Join(errs...)
}

// end leaves nothing mounted.
func (s *surrounding) end() { _ = s.unmount() }
