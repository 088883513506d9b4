// Package powercut is the row that cuts the power: a file system on a loop device is shut down without its log being
// flushed while workers record usage in a state on it. What was acknowledged must be there when it is mounted again.
package powercut

import (
	"context"

	"example.com/quota/torture/harness"
)

const (
	machineWorker = "powercut-machine"
	loadWorker    = "powercut-load"
)

// Row returns the row.
func Row() harness.Row {
	return harness.Row{
		Number:  4,
		Name:    "powercut",
		Promise: "a power cut loses nothing acknowledged",
		Unit:    "cuts",
		Quick:   60,
		Full:    1200,
		Root:    true,
		Tools:   []string{"mkfs.ext4", "mkfs.xfs", "mount", "umount", "e2fsck", "xfs_repair"},
		Run:     func(ctx context.Context, run *harness.Run) error { return start(ctx, run) },
		Workers: map[string]func(args []string) error{machineWorker: machine, loadWorker: load},
		Faults: []harness.Fault{
			{
				Name:  "the directory is not synced",
				Cases: 24,
				Edits: []harness.Edit{{
					File: "jsonfile_unix.go",
					Old:  "func syncDir(dir *os.File) error { return dir.Sync() }",
					New:  "func syncDir(*os.File) error { return nil }",
				}},
			},
			{
				// The library syncs renameio's pending file itself, so this leaves the sync out for real.
				Name:  "the file is not synced",
				Cases: 24,
				Edits: []harness.Edit{{
					File: "jsonfile_save.go",
					Old:  "	if err := temp.Sync(); err != nil {",
					New:  "	if err := error(nil); err != nil {",
				}},
			},
		},
	}
}
