package quota

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// tempSuffix is in the names of temporary files before a random number, so that they belong to one state alone and are
// nothing that anybody else names so: those of a are .a.tmp-1, those of a1 .a1.tmp-1.
const tempSuffix = ".tmp-"

// isTemp reports whether name is one of the temporary files that replace the file named base.
func isTemp(name, base string) bool {
	number, ok := strings.CutPrefix(name, "."+base+tempSuffix)
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// isAside reports whether name is one that setAside gives to the file named base.
func isAside(name, base string) bool {
	at, ok := strings.CutPrefix(name, base+corruptSuffix)
	if !ok || len(at) < len(asideForm) {
		return false
	}
	number, numbered := strings.CutPrefix(at[len(asideForm):], "-")
	_, err := time.Parse(asideForm, at[:len(asideForm)])
	return err == nil && numbered == (number != "") && strings.Trim(number, "0123456789") == ""
}

// backupTemp is what .bak is called until it takes the place of the one before.
func backupTemp(target string) string {
	return filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+backupSuffix+".tmp")
}

// leftovers lists the temporary files of processes that were killed. Only whoever has the lock may call them that.
func (c *cycle) leftovers() []string {
	dir := filepath.Dir(c.target)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var found []string
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if path == backupTemp(c.target) || isTemp(entry.Name(), filepath.Base(c.target)) ||
			isTemp(entry.Name(), filepath.Base(historyPath(c.target))) {
			found = append(found, path)
		}
	}
	return found
}

func (c *cycle) sweep() {
	for _, path := range c.leftovers() {
		_ = os.Remove(path) // what cannot be removed harms nobody
	}
}

// clear removes every file of the state. The locks go last; whoever waits for them sees that they are gone.
func (c *cycle) clear() error {
	paths := c.leftovers()
	dir := filepath.Dir(c.target)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fileError("read", dir, err)
	}
	for _, entry := range entries {
		for _, base := range []string{c.target, c.target + backupSuffix, historyPath(c.target)} {
			if isAside(entry.Name(), filepath.Base(base)) {
				paths = append(paths, filepath.Join(dir, entry.Name()))
			}
		}
	}
	paths = append(paths, historyPath(c.target), c.target+backupSuffix, c.target)
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("quota: %w", fileError("remove", path, err))
		}
	}
	c.f.closeSign()
	for _, path := range []string{c.target + signSuffix, c.target + lockSuffix, c.target + ownerSuffix} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) && removesOpenFiles {
			return fmt.Errorf("quota: %w", fileError("remove", path, err))
		}
	}
	c.f.unsettled, c.f.pastUnsettled, c.f.backup, c.f.perhaps = false, false, nil, nil
	if err := c.f.files.syncDir(c.f.dir); err != nil {
		return fmt.Errorf("quota: %w", fileError("sync the directory", dir, err))
	}
	return nil
}
