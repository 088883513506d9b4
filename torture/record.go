package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.com/quota/torture/harness"
)

// What stands between these lines of README.md is of the last full run.
const (
	recordBegins = "<!-- last full run -->"
	recordEnds   = "<!-- end of last full run -->"
)

// note keeps the line of a row that has passed.
func (d *driver) note(row harness.Row, line string) {
	d.printing.Lock()
	defer d.printing.Unlock()
	d.lines = append(d.lines, fmt.Sprintf("%02d", row.Number)+line)
}

// write puts the lines into README.md.
func (d *driver) write() error {
	path := filepath.Join(d.module, "README.md")
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(data), recordBegins)
	_, after, ends := strings.Cut(rest, recordEnds)
	if !begins || !ends {
		return errors.New(path + " has no place for the numbers of this run")
	}
	slices.Sort(d.lines)
	var table strings.Builder
	fmt.Fprintf(&table, "%s\n\nMade on %s by `go run . -full -record -seed %d`.\n\n", recordBegins, time.Now().UTC().Format(time.DateOnly), d.seed)
	table.WriteString("| # | row | promise | tried | faults caught | took |\n|---|---|---|---|---|---|\n")
	for _, line := range d.lines {
		table.WriteString(line[2:] + "\n")
	}
	return os.WriteFile(path, []byte(before+table.String()+"\n"+recordEnds+after), 0o644)
}
