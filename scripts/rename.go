//go:build ignore

// Rename gives the project another module path, in every file that names it: go run scripts/rename.go NEW.
// Running it again with the same path changes nothing.
package main

import (
	"bytes"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	if len(os.Args) != 2 || !modulePath.MatchString(os.Args[1]) {
		fmt.Fprintln(os.Stderr, "rename: name the new path: make rename MODULE=github.com/you/quota")
		os.Exit(2)
	}
	if err := rename(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "rename:", err)
		os.Exit(1)
	}
}

var (
	modulePath = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+(/[A-Za-z0-9._~-]+)+$`)
	moduleLine = regexp.MustCompile(`(?m)^module\s+(\S+)`)
)

func rename(to string) error {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		return err
	}
	line := moduleLine.FindSubmatch(mod)
	if line == nil {
		return fmt.Errorf("go.mod names no module")
	}
	from := string(line[1])
	if from == to {
		fmt.Println("rename: the module is", to, "already")
		return nil
	}
	old := regexp.MustCompile(regexp.QuoteMeta(from) + `\b`)

	// The root go.mod says which path is the old one, so it changes last: after a failure, the same command goes on.
	paths, err := files()
	if err != nil {
		return err
	}
	changed := 0
	for _, path := range append(paths, "go.mod") {
		did, err := replace(path, old, to)
		if err != nil {
			return err
		}
		if did {
			changed++
		}
	}
	fmt.Printf("rename: %s is now %s, in %d files\n", from, to, changed)
	return nil
}

// files lists the files of the tree, but for the root go.mod and what git or make put there.
func files() ([]string, error) {
	var paths []string
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (path == ".git" || path == ".tools"):
			return filepath.SkipDir
		case entry.Type().IsRegular() && path != "go.mod":
			paths = append(paths, path)
		}
		return nil
	})
	return paths, err
}

func replace(path string, old *regexp.Regexp, to string) (changed bool, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	if bytes.IndexByte(data, 0) >= 0 || !old.Match(data) {
		return false, nil
	}
	data = old.ReplaceAllLiteral(data, []byte(to))
	if strings.HasSuffix(path, ".go") {
		// Imports are sorted by path.
		if data, err = format.Source(data); err != nil {
			return false, fmt.Errorf("%s: %w", path, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	if err := os.WriteFile(path, data, info.Mode().Perm()); err != nil {
		return false, err
	}
	if filepath.Base(path) == "go.mod" {
		return true, exec.Command("go", "mod", "edit", "-fmt", path).Run()
	}
	return true, nil
}
