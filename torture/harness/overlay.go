package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Overlay writes the edited files and the list that `go build -overlay` reads into dir, and returns the list's path.
// The library's own files stay as they are.
func (f Fault) Overlay(library, dir string) (string, error) {
	edited := make(map[string]string) // the edited text of each file
	for _, edit := range f.Edits {
		path := filepath.Join(library, edit.File)
		text, ok := edited[path]
		if !ok {
			data, err := os.ReadFile(path)
			if err != nil {
				return "", fmt.Errorf("fault %q: %w", f.Name, err)
			}
			text = string(data)
		}
		if n := strings.Count(text, edit.Old); n != 1 {
			return "", fmt.Errorf("fault %q: %s has this %d times, it must be there once:\n%s", f.Name, edit.File, n, edit.Old)
		}
		edited[path] = strings.Replace(text, edit.Old, edit.New, 1)
	}
	list := struct{ Replace map[string]string }{make(map[string]string)}
	for path, text := range edited {
		copied := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(copied, []byte(text), 0o600); err != nil {
			return "", err
		}
		list.Replace[path] = copied
	}
	data, err := json.Marshal(list)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, data, 0o600)
}

// Build builds this program into dir, from the module in module, with the fault built into the library if there is
// one, and returns its path.
func Build(ctx context.Context, module, dir string, race bool, fault *Fault) (string, error) {
	program := filepath.Join(dir, "torture")
	args := []string{"build", "-o", program}
	if race {
		args = append(args, "-race")
	}
	if fault != nil {
		overlay, err := fault.Overlay(filepath.Dir(module), dir)
		if err != nil {
			return "", err
		}
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building: %w\n%s", err, out)
	}
	return program, nil
}
