// Package failing is the row that lets file system calls fail: one, or all from one on, with each of the errors that
// disks and systems have; and that takes a disk's space, makes a directory read-only, and mounts the state's file.
//
// Whatever then happens, what was acknowledged is on the disk. The fault is then lifted, in the same process, and memory
// and disk say the same, what could not be saved counts exactly once, and no descriptor is left open.
package failing

import "example.com/quota/torture/harness"

// Row returns the row.
func Row() harness.Row {
	return harness.Row{
		Number:  5,
		Name:    "failing",
		Promise: "failing calls are reported and harmless",
		Unit:    "failures",
		Quick:   200,
		Full:    3_000,
		Root:    true, // for the mounts
		Run:     run,
		Workers: workers(),
		Faults: []harness.Fault{
			{
				Name: "a failed fsync is retried on the same file",
				Edits: []harness.Edit{{
					File: "jsonfile_save.go",
					Old:  "	if err := temp.Sync(); err != nil {\n",
					New:  "	if err := temp.Sync(); err != nil && temp.Sync() != nil {\n",
				}},
				Cases: 200,
			},
			{
				Name: "a batch is applied again after its rename",
				Edits: []harness.Edit{{
					File: "updating.go",
					Old:  "	case c.batch != 0 && first.applied(writer, c.batch):\n",
					New:  "	case false:\n",
				}},
				Cases: 200,
			},
		},
	}
}
