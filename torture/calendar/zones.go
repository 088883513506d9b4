package calendar

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// strange are zones whose days begin when they should not, go on for too long, or never come.
func strange() []string {
	return []string{
		"America/Havana", "Africa/Cairo", "America/Sao_Paulo", "Pacific/Apia", "Asia/Beirut", "Asia/Gaza", "Atlantic/Azores",
		"America/St_Johns", "Antarctica/Troll", "Africa/Monrovia", "Pacific/Kwajalein", "Australia/Lord_Howe",
	}
}

// zones returns the name of every zone that this machine has, in order.
func zones(ctx context.Context) ([]string, error) {
	for _, dir := range []string{os.Getenv("ZONEINFO"), "/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return namesIn(os.DirFS(dir))
		}
	}
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("asking go where its time zones are: %w", err)
	}
	archive, err := zip.OpenReader(filepath.Join(strings.TrimSpace(string(root)), "lib", "time", "zoneinfo.zip"))
	if err != nil {
		return nil, fmt.Errorf("there are no time zones here, install tzdata: %w", err)
	}
	defer func() { _ = archive.Close() }() // it was only read
	return namesIn(archive)
}

// namesIn returns the names of the files that hold a zone.
func namesIn(files fs.FS) ([]string, error) {
	var names []string
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		// posix has the same zones again, and right has them with leap seconds, which Go does not count.
		if entry.IsDir() {
			if path == "posix" || path == "right" {
				return fs.SkipDir
			}
			return nil
		}
		if path[0] < 'A' || path[0] > 'Z' {
			return nil // localtime, posixrules, tables
		}
		data, err := fs.ReadFile(files, path)
		if err != nil {
			return err
		}
		if bytes.HasPrefix(data, []byte("TZif")) {
			names = append(names, path)
		}
		return nil
	})
	if err == nil && len(names) < 300 {
		err = errors.New("hardly any time zones are here, install tzdata")
	}
	slices.Sort(names)
	return names, err
}

// A change is an instant from which a zone has another offset from UTC than before.
type change struct {
	at     int64 // seconds since 1970
	offset int64 // from then on
}

// changes finds the changes of a zone from one second to another, the first of them being the offset at its beginning.
// It asks for offsets alone, every so often, and looks closer where two differ.
func changes(loc *time.Location, from, to int64) []change {
	const step = 2 * 60 * 60
	offset := func(at int64) int64 {
		_, seconds := time.Unix(at, 0).In(loc).Zone()
		return int64(seconds)
	}
	found := []change{{from, offset(from)}}
	for at := from; at < to; at += step {
		end := min(at+step, to)
		last := offset(end)
		for begin := at; ; {
			before := found[len(found)-1].offset
			if before == last {
				break
			}
			low, high := begin, end // before holds at low, and no longer at high
			for high-low > 1 {
				if middle := low + (high-low)/2; offset(middle) == before {
					low = middle
				} else {
					high = middle
				}
			}
			found = append(found, change{high, offset(high)})
			begin = high
		}
	}
	return found
}
