// Package kill is the row that kills a process at every file system call that an operation on a JSON file makes.
//
// The victim dies at the entry of the call, which it then does not make: it has made all those before. After that a
// tracker in this process opens the state, without anybody having touched it: what was acknowledged is there, the
// operation that was under way is there or is not, nothing was left behind, and no alert is lost.
package kill

import "example.com/quota/torture/harness"

// Row returns the row.
func Row() harness.Row {
	return harness.Row{
		Number:  3,
		Name:    "kill",
		Promise: "a kill at any instant loses nothing acknowledged",
		Unit:    "kills",
		Quick:   harness.All,
		Full:    20_000,
		Run:     run,
		Workers: workers(),
		Faults: []harness.Fault{
			{
				Name: "there is no lock around the save",
				Edits: []harness.Edit{{
					File: "jsonfile_save.go",
					Old:  "	c := &cycle{f: f, target: target}\n",
					New:  "	_ = lock.Unlock()\n	c := &cycle{f: f, target: target}\n",
				}},
				Cases: harness.All,
			},
			{
				Name: "the state is written in place",
				Edits: []harness.Edit{{
					File: "jsonfile_unix.go",
					Old:  "func renameFile(from, to string) error { return os.Rename(from, to) }\n",
					New: "func renameFile(from, to string) error {\n" +
						"	data, err := os.ReadFile(from)\n" +
						"	if err == nil {\n" +
						"		err = os.WriteFile(to, data, 0o600)\n" +
						"	}\n" +
						"	if err == nil {\n" +
						"		err = os.Remove(from)\n" +
						"	}\n" +
						"	return err\n" +
						"}\n",
				}},
				Cases: harness.All,
			},
		},
	}
}
