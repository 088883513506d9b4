package damage

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
)

// cases returns every case there is: first those made by hand, then every bit and every length, in an order of chance.
func (s *scene) cases(random *rand.Rand) []damaged {
	some := func() bool { return random.IntN(16) == 0 } // what is no more than a variation of the others
	list := s.whole()
	list = append(list, s.replaced()...)
	list = append(list, s.numbers()...)
	var more []damaged
	for _, one := range append(everyBit(state, s.files[state]), everyLength(state, s.files[state])...) {
		more = append(more, one, one.without(backup))
		if some() {
			more = append(more, one.strictly())
		}
	}
	for _, one := range append(everyBit(history, s.files[history]), everyLength(history, s.files[history])...) {
		more = append(more, one)
		if some() {
			more = append(more, one.strictly(), one.without(backup))
		}
	}
	more = append(more, everyBit(lock, s.files[lock])...)
	more = append(more, everyLength(lock, s.files[lock])...)
	// The .bak, when nothing depends on it, and when everything does.
	for _, one := range append(everyBit(backup, s.files[backup]), everyLength(backup, s.files[backup])...) {
		if some() {
			more = append(more, one, one.without(state))
		}
	}
	random.Shuffle(len(more), func(i, j int) { more[i], more[j] = more[j], more[i] })
	return append(list, more...)
}

// without returns the case with another file missing.
func (d damaged) without(name string) damaged {
	change := d.change
	d.what += ", without " + name
	d.change = func(all files) { change(all); delete(all, name) }
	return d
}

// strictly returns the case for a state that is strict.
func (d damaged) strictly() damaged {
	d.strict = true
	return d
}

func everyBit(name, text string) []damaged {
	var list []damaged
	for at := range len(text) {
		for bit := range 8 {
			list = append(list, damaged{
				what: fmt.Sprintf("bit %d of byte %d of %s", bit, at, name),
				change: func(all files) {
					data := []byte(text)
					data[at] ^= 1 << bit
					all[name] = string(data)
				},
			})
		}
	}
	return list
}

func everyLength(name, text string) []damaged {
	var list []damaged
	for length := range len(text) {
		list = append(list, damaged{
			what:   fmt.Sprintf("%s cut off after %d bytes", name, length),
			change: func(all files) { all[name] = text[:length] },
		})
	}
	return list
}

// whole are files deleted and exchanged.
func (s *scene) whole() []damaged {
	var list []damaged
	names := []string{state, backup, lock, owner, history}
	for which := 1; which < 1<<len(names); which++ {
		var gone []string
		for i, name := range names {
			if which&(1<<i) != 0 {
				gone = append(gone, name)
			}
		}
		one := damaged{
			what: "deleted: " + strings.Join(gone, ", "),
			change: func(all files) {
				for _, name := range gone {
					delete(all, name)
				}
			},
		}
		if which&0b111 == 0b111 {
			one.silent = true // nothing says that there ever was a state
		}
		list = append(list, one, one.strictly())
	}
	older := []picture{s.truth, s.old, s.olderTruth}
	put := func(what string, change func(files)) {
		one := damaged{what: what, change: change, recovered: older}
		list = append(list, one, one.strictly())
	}
	put("state and .bak exchanged", func(all files) { all[state], all[backup] = all[backup], all[state] })
	put("the .bak in the place of the state", func(all files) { all[state] = all[backup] })
	put("an older state put back", func(all files) { all[state] = s.older })
	put("an older state put back, without .bak", func(all files) { all[state] = s.older; delete(all, backup) })
	put("an older state and .bak put back", func(all files) { all[state], all[backup] = s.older, s.older })
	return list
}

// replaced are files with another content altogether.
func (s *scene) replaced() []damaged {
	var list []damaged
	add := func(name, what, text string) {
		one := damaged{what: name + " " + what, change: func(all files) { all[name] = text }}
		list = append(list, one, one.strictly(), one.without(backup))
	}
	for _, name := range []string{state, history, lock} {
		text := s.files[name]
		add(name, "empty", "")
		add(name, "of white space", strings.Repeat(" \n", 500))
		add(name, "of zeros", strings.Repeat("\x00", len(text)))
		add(name, "of ones", strings.Repeat("\xff", len(text)))
		add(name, "of {}", "{}")
		add(name, "of null", "null")
		add(name, "of []", "[]")
		add(name, "twice", text+text)
		add(name, "followed by {}", text+"{}")
		add(name, "with a byte order mark", "\ufeff"+text)
		add(name, "nested deeply", strings.Repeat("[", 200_000))
		add(name, "nested deeply in a member", `{"version": 2, "generation": 9, "books": {"work": `+strings.Repeat(`{"a":`, 200_000))
		const sector = 512
		for at := 0; at < len(text); at += sector {
			end := min(at+sector, len(text))
			add(name, fmt.Sprintf("with zeros from %d to %d", at, end), text[:at]+strings.Repeat("\x00", end-at)+text[end:])
			add(name, fmt.Sprintf("without %d to %d", at, end), text[:at]+text[end:])
		}
		lines := strings.SplitAfter(text, "\n")
		for i, line := range lines[:len(lines)-1] {
			before, after := strings.Join(lines[:i], ""), strings.Join(lines[i+1:], "")
			add(name, fmt.Sprintf("with line %d twice", i+1), before+line+line+after)
			if !strings.Contains(line, `"checksum"`) {
				add(name, fmt.Sprintf("without line %d", i+1), before+after)
			}
		}
	}
	// Of two whole files pieced together neither checksum holds.
	for at := 512; at < min(len(s.files[state]), len(s.files[backup])); at += 512 {
		if text := s.files[backup][:at] + s.files[state][at:]; text != s.files[state] {
			add(state, fmt.Sprintf("with the first %d bytes of the .bak", at), text)
		}
	}
	return list
}

var (
	checksumLine = regexp.MustCompile(`,\n  "checksum": "[^"]*"`)
	numberValue  = regexp.MustCompile(`": ?-?[0-9]+`)
	timeValue    = regexp.MustCompile(`"20[0-9][0-9]-[^"]*"`)
)

// numbers are states without a checksum, as people leave them who edit by hand, in which one number or one time is
// something that it cannot be.
func (s *scene) numbers() []damaged {
	var list []damaged
	for _, name := range []string{state, history} {
		text := checksumLine.ReplaceAllString(s.files[name], "")
		add := func(what string, from, to int, value string) {
			change := func(all files) { all[name] = text[:from] + value + text[to:] }
			what = fmt.Sprintf("%s without checksum and with %s for %q at %d", name, what, text[from:to], from)
			one := damaged{what: what, change: change}
			list = append(list, one, one.strictly())
		}
		for _, at := range numberValue.FindAllStringIndex(text, -1) {
			from := at[0] + strings.Index(text[at[0]:], ":") + 1
			for _, value := range []string{
				"-1", "-9223372036854775808", "9223372036854775808", "1e400", "0.5", `"7"`, "[]", "{}", "true",
				strings.Repeat("9", 10_000), strings.Repeat("[", 20_000),
			} {
				add(value[:min(len(value), 20)], from, at[1], value)
			}
		}
		for _, at := range timeValue.FindAllStringIndex(text, -1) {
			for _, value := range []string{`"yesterday"`, `""`, "7", "{}", `"2026-13-01T00:00:00Z"`, `"99999-01-01T00:00:00Z"`} {
				add(value, at[0], at[1], value)
			}
		}
	}
	return list
}
