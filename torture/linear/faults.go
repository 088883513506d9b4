package linear

import "example.com/quota/torture/harness"

func faults() []harness.Fault {
	return []harness.Fault{
		{
			Name:  "check and add in two steps",
			Cases: 24,
			Edits: []harness.Edit{
				{
					File: "acquire.go",
					Old:  "\t\"fmt\"\n\t\"slices\"\n",
					New:  "\t\"fmt\"\n\t\"runtime\"\n\t\"slices\"\n",
				},
				{
					File: "acquire.go",
					Old:  "\tif o.admit(pages) {\n",
					New: `	if o.admit(pages) {
		if !o.tracker.shared.active() {
			for i := range pages {
				pages[i].entry.mu.Unlock()
			}
			runtime.Gosched()
			for i := range pages {
				pages[i].entry.mu.Lock()
			}
		}
`,
				},
			},
		},
		{
			Name:  "the lock is on the data file itself",
			Cases: 16,
			Edits: []harness.Edit{
				{
					File: "jsonfile_save.go",
					Old:  "\t\"syscall\"\n)\n",
					New:  "\t\"syscall\"\n\n\t\"github.com/gofrs/flock\"\n)\n",
				},
				{
					File: "jsonfile_save.go",
					Old:  "\tlock, err := f.takeLock(bounded, target+lockSuffix, false)\n",
					New: `	where := target
	if _, err := os.Stat(target); err != nil {
		where += lockSuffix
	}
	lock := flock.New(where)
	err = lock.Lock()
`,
				},
			},
		},
	}
}
