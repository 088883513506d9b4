package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"example.com/quota"
)

// measureLooking is row 12.
func (b *bench) measureLooking() ([]finding, error) {
	shared, dir, err := b.openDurable()
	if err != nil {
		return nil, err
	}
	defer b.shut(shared)
	forgetful, err := b.tracker(quota.InMemory(), accounts()...)
	if err != nil {
		return nil, err
	}
	defer b.shut(forgetful)
	var findings []finding
	onFile, inMemory := both("CanUse", canUse(shared, account, true)), both("in memory", canUse(forgetful, account, true))
	for i, how := range []string{"1 goroutine", "2 goroutines"} {
		found, err := compare(b.pace, onFile[i], inMemory[i])
		if err != nil {
			return nil, err
		}
		findings = append(findings, against(12, "CanUse on a shared JSONFile, "+how, found[0], found[1]))
	}
	return findings, b.countSystemCalls(dir)
}

// askAsChild is what the traced process does.
func askAsChild(o order) (done answer, err error) {
	b := &bench{ctx: background()}
	t, err := b.tracker(quota.NewJSONFile(o.Path), accounts()...)
	if err != nil {
		return done, err
	}
	defer b.shut(t)
	if err := awaitStart(); err != nil {
		return done, err
	}
	return answer{Ops: o.Count}, canUse(t, account, true)(0, o.Count)
}

// countSystemCalls traces a process that asks and one that does not; what one has more than the other is the asking.
func (b *bench) countSystemCalls(dir string) error {
	tracer, err := exec.LookPath("strace")
	if err != nil {
		b.say(12, "System calls were not counted: there is no strace here.")
		return nil
	}
	asked := 20_000
	if b.quick {
		asked = 2_000
	}
	var counts [2]map[string]int
	for i, calls := range []int{0, asked} {
		path := filepath.Join(dir, fmt.Sprintf("strace%d.txt", i))
		_, err := together(b.ctx, []string{tracer, "-f", "-c", "-o", path}, order{Kind: "ask", Path: statePath(dir), Count: calls})
		if err == nil {
			counts[i], err = readCounts(path)
		}
		if err != nil {
			b.say(12, "System calls were not counted: strace cannot trace here (%v).", err)
			return nil
		}
	}
	var each []string
	total := 0.0
	for name, n := range counts[1] {
		perCall := float64(n-counts[0][name]) / float64(asked)
		if perCall < 0.01 {
			continue // the runtime's own
		}
		total += perCall
		each = append(each, fmt.Sprintf("%s %.2f", name, perCall))
	}
	slices.Sort(each)
	if len(each) == 0 {
		each = []string{"none"}
	}
	b.say(12, "System calls of one CanUse on the shared file, counted by strace over %s calls: %.2f (%s).",
		commas(asked), total, strings.Join(each, ", "))
	return nil
}

// readCounts reads the table of strace -c.
func readCounts(path string) (map[string]int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // % time, seconds, usecs/call, calls, errors or nothing, syscall
		if len(fields) < 5 || fields[len(fields)-1] == "total" {
			continue
		}
		if n, err := strconv.Atoi(fields[3]); err == nil {
			counts[fields[len(fields)-1]] = n
		}
	}
	if len(counts) == 0 {
		return nil, errors.New("strace printed no counts")
	}
	return counts, nil
}
