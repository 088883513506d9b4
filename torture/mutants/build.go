package mutants

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// build builds the tests of the library with every mutant in them, once to record which are reached, once to hunt them.
func (s *source) build(ctx context.Context, dir string, texts map[string]string) (recorder, hunter string, err error) {
	replaced := make(map[string]string)
	for name, text := range texts {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return "", "", err
		}
		replaced[filepath.Join(s.root, name)] = path
	}
	for _, recording := range []bool{true, false} {
		program := filepath.Join(dir, fmt.Sprintf("recording-%t.test", recording))
		path := filepath.Join(dir, fmt.Sprintf("switches-%t.go", recording))
		if err := os.WriteFile(path, []byte(s.switchFile(recording)), 0o600); err != nil {
			return "", "", err
		}
		replaced[filepath.Join(s.root, "mutant_switches.go")] = path
		data, err := json.Marshal(map[string]any{"Replace": replaced})
		if err != nil {
			return "", "", err
		}
		overlay := filepath.Join(dir, "overlay.json")
		if err := os.WriteFile(overlay, data, 0o600); err != nil {
			return "", "", err
		}
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", program, ".")
		cmd.Dir = s.root
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", "", fmt.Errorf("building the tests with the mutants: %w\n%s", err, out)
		}
		if recording {
			recorder = program
		} else {
			hunter = program
		}
	}
	return recorder, hunter, nil
}
