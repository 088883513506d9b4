package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// What stands between these two lines in the README is what stands between them in RESULTS.md.
const (
	beginMark = "<!-- bench: from bench/RESULTS.md, by go run . -readme -->"
	endMark   = "<!-- bench: end -->"
)

// between cuts a page at the marks.
func between(page string) (before, table, after string, found bool) {
	before, rest, hasBegin := strings.Cut(page, beginMark+"\n")
	table, after, hasEnd := strings.Cut(rest, endMark)
	return before, table, after, hasBegin && hasEnd
}

// readTables returns the README as it should be, and as it is.
func readTables(readme, results string) (should, is string, err error) {
	page, err := os.ReadFile(readme)
	if err != nil {
		return "", "", err
	}
	is = normal(page)
	before, _, after, found := between(is)
	if !found {
		return "", "", errNoMarks
	}
	measured, err := os.ReadFile(results)
	if err != nil {
		return "", "", err
	}
	_, table, _, found := between(normal(measured))
	if !found {
		return "", "", fmt.Errorf("%s has no table between its marks: run make bench first", results)
	}
	return before + beginMark + "\n" + table + endMark + after, is, nil
}

func normal(page []byte) string { return strings.ReplaceAll(string(page), "\r\n", "\n") }

var errNoMarks = errors.New("the README has no place for the table: put these two lines into it:\n" + beginMark + "\n" + endMark)

// fillREADME puts the table of the results into the README.
func fillREADME(readme, results string) error {
	should, is, err := readTables(readme, results)
	if err != nil || should == is {
		return err
	}
	return os.WriteFile(readme, []byte(should), 0o644)
}

// agree fails if the README shows other numbers than the results. A README without a place for them shows none.
func agree(readme, results string) error {
	should, is, err := readTables(readme, results)
	if errors.Is(err, errNoMarks) {
		return nil
	}
	if err == nil && should != is {
		err = errors.New("the README's table is not that of RESULTS.md: go run . -readme puts it there")
	}
	return err
}
