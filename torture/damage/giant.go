package damage

import (
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"example.com/quota/quotatest"
	"example.com/quota/torture/harness"
)

// A giant is a file as large as is read, or larger.
type giant struct {
	name  string
	file  string
	size  int64
	begin string
	fill  string // repeated up to size; "": the file has a hole
	end   string
}

const (
	mostRead = 64 << 20 // bytes of a state
	large    = mostRead / 8
	times    = 24 // the memory that a file may take, by its size
)

func giants() []giant {
	return []giant{
		{name: "more than is read, a hole", file: state, size: mostRead + 1},
		{name: "a terabyte, a hole", file: state, size: 1 << 40},
		{name: "more than is read, of a member", file: state, size: mostRead + 1, begin: `{"a":[0`, fill: ",0"},
		{name: "nested", file: state, size: mostRead, fill: "["},
		{name: "a number", file: state, size: large, begin: `{"version":2,"books":{},"generation":`, fill: "9", end: "}"},
		{name: "many IDs", file: state, size: large, begin: `{"version":2,"generation":9,"books":{"work":{"clock":"2026-03-12T09:30:00Z","settled":[`,
			fill: `{"id":"a","until":"2026-03-12T09:30:00Z"},`, end: `{"id":"","until":"2026-03-12T09:30:00Z"}]}}}`},
		{name: "many slices", file: state, size: large, begin: `{"version":2,"generation":9,"books":{"work":{"clock":"2026-03-12T09:30:00Z","accounts":{"a":{"slices":[`,
			fill: `{},`, end: `{}]}}}}}`},
		{name: "a terabyte of past days, a hole", file: history, size: 1 << 40},
		{name: "many past days", file: history, size: large, begin: `{"version":2,"days":{"work":[`, fill: `{},`, end: `{}]}}`},
	}
}

func (g giant) write(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.WriteString(g.begin); err != nil {
		return err
	}
	if g.fill == "" {
		return file.Truncate(g.size)
	}
	block := strings.Repeat(g.fill, (1<<20)/len(g.fill))
	for at := int64(len(g.begin) + len(g.end)); at+int64(len(block)) <= g.size; at += int64(len(block)) {
		if _, err := file.WriteString(block); err != nil {
			return err
		}
	}
	_, err = file.WriteString(g.end)
	return err
}

// try opens a state with the giant in the place of one of its files. It must be recovered from, in bounded memory.
func (g giant) try(dir string, whole *scene) error {
	all := maps.Clone(whole.files)
	delete(all, g.file)
	if err := all.put(dir); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := g.write(filepath.Join(dir, g.file)); err != nil {
		return err
	}
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	most := watch()
	log := &errorsOf{}
	tracker, err := open(dir, false, quotatest.NewClock(now), log)
	peak := most()
	if err != nil {
		return harness.Violated("it is not recovered from: %v", err)
	}
	defer func() { _ = tracker.Close() }() // what counts has been seen by then
	seen, err := take(tracker)
	if err != nil {
		return err
	}
	wanted := whole.old
	if g.file == history {
		wanted = whole.truth
	}
	if report := tracker.Summary().Recovered; report == "" || log.count.Load() == 0 || seen.usage != wanted.usage {
		return harness.Violated("reported was %q, and this differs:\n%s", report, difference(seen.usage, wanted.usage))
	}
	if aside, err := filepath.Glob(filepath.Join(dir, g.file+".corrupt-*")); err != nil || len(aside) != 1 {
		return harness.Violated("it is not set aside: %v %v", aside, err)
	}
	if taken := int64(peak) - int64(before.HeapAlloc); taken > times*min(g.size, mostRead) {
		return harness.Violated("a file of %d bytes took %d bytes of memory", g.size, taken)
	}
	return nil
}

// watch looks at the size of the heap until it is asked for the largest that it has seen.
func watch() func() uint64 {
	asked, answer := make(chan struct{}), make(chan uint64)
	go func() {
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		var stats runtime.MemStats
		var most uint64
		for last := false; ; {
			runtime.ReadMemStats(&stats)
			most = max(most, stats.HeapAlloc)
			if last {
				answer <- most
				return
			}
			select {
			case <-ticker.C:
			case <-asked:
				last = true
			}
		}
	}()
	return func() uint64 {
		close(asked)
		return <-answer
	}
}
