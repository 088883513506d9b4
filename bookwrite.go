package quota

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A bookWriter writes the JSON form of a book as encoding/json would, without its reflection: every save waits for it.
// With indent it breaks lines for people, but not within what is small and comes in numbers.
type bookWriter struct {
	out    []byte
	indent bool
	depth  int  // of the line
	flat   bool // what is open stays on one line
	begun  bool
	err    error

	seconds [2]secondText // that were written last, of what expires and of all else: most are near those before
	ttl     spanText
}

// A secondText is a second as text, without its end.
type secondText struct {
	second int64
	text   [len("2006-01-02T15:04:05")]byte
}

type spanText struct {
	span span
	text string
}

// appendTo appends the form to out; indented for a file where the book is a member of a member.
func (form *bookJSON) appendTo(out []byte, indented bool) ([]byte, error) {
	w := bookWriter{out: out, indent: indented, depth: 2}
	w.book(form)
	return w.out, w.err
}

func (w *bookWriter) open(bracket byte) {
	w.out = append(w.out, bracket)
	w.begun = false
	w.depth++
}

// openFlat is open for what stays on one line, and has nothing in it that is opened.
func (w *bookWriter) openFlat(bracket byte) {
	w.out = append(w.out, bracket)
	w.begun = false
	w.flat = true
}

func (w *bookWriter) close(bracket byte) {
	if w.flat {
		w.flat = false
	} else if w.depth--; w.begun {
		w.newline()
	}
	w.out = append(w.out, bracket)
	w.begun = true
}

const indentation = "                "

func (w *bookWriter) newline() {
	if w.indent {
		w.out = append(append(w.out, '\n'), indentation[:2*w.depth]...)
	}
}

// next begins an element or a member.
func (w *bookWriter) next() {
	if w.begun {
		w.out = append(w.out, ',')
	}
	switch {
	case !w.flat:
		w.newline()
	case w.begun && w.indent:
		w.out = append(w.out, ' ')
	}
	w.begun = true
}

// key begins a member whose name stands for itself.
func (w *bookWriter) key(name string) {
	w.next()
	w.out = append(append(append(w.out, '"'), name...), '"')
	w.colon()
}

// keyOf begins a member of any name.
func (w *bookWriter) keyOf(name string) {
	w.next()
	w.string(name)
	w.colon()
}

func (w *bookWriter) colon() {
	w.out = append(w.out, ':')
	if w.indent {
		w.out = append(w.out, ' ')
	}
}

// string writes text as encoding/json does.
func (w *bookWriter) string(text string) {
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			w.any(text)
			return
		}
	}
	w.out = append(append(append(w.out, '"'), text...), '"')
}

// any writes what encoding/json knows and few books have.
func (w *bookWriter) any(v any) {
	data, err := json.Marshal(v)
	if err == nil && w.indent {
		var lines bytes.Buffer
		err = json.Indent(&lines, data, indentation[:2*w.depth], "  ")
		data = lines.Bytes()
	}
	if err != nil {
		w.err = err
	}
	w.out = append(w.out, data...)
}

func (w *bookWriter) list(name string, length int, element func(i int)) {
	if length == 0 {
		return
	}
	w.key(name)
	w.open('[')
	for i := range length {
		w.next()
		element(i)
	}
	w.close(']')
}

func (w *bookWriter) text(name, text string) {
	w.key(name)
	w.string(text)
}

func (w *bookWriter) integer(name string, n int64) {
	w.key(name)
	w.out = strconv.AppendInt(w.out, n, 10)
}

func (w *bookWriter) moment(name string, m moment) {
	w.key(name)
	w.out = append(w.out, '"')
	known := &w.seconds[0]
	if name == "expires" {
		known = &w.seconds[1]
	}
	w.out = append(known.moment(w.out, m), '"')
}

// moment appends what time.RFC3339Nano makes of m.
func (known *secondText) moment(out []byte, m moment) []byte {
	second, nanos := int64(m)/int64(time.Second), int64(m)%int64(time.Second)
	if second <= 0 {
		return instant(int64(m)).AppendFormat(out, time.RFC3339Nano)
	}
	if known.second != second {
		known.second = second
		instant(int64(m)).AppendFormat(known.text[:0], "2006-01-02T15:04:05")
	}
	out = append(out, known.text[:]...)
	if nanos != 0 {
		fraction := []byte(".000000000")
		for i := len(fraction) - 1; i > 0; i-- {
			fraction[i] = byte('0' + nanos%10)
			nanos /= 10
		}
		out = append(out, bytes.TrimRight(fraction, "0")...)
	}
	return append(out, 'Z')
}

func (w *bookWriter) number(name string, n number) {
	w.key(name)
	w.out = append(w.out, '"')
	w.out = strconv.AppendUint(w.out, uint64(n), 36)
	w.out = append(w.out, '"')
}

func (w *bookWriter) amounts(name string, m *amountsOf) {
	w.key(name)
	w.openFlat('{')
	if len(m.other) == 0 {
		for _, at := range [places]place{atRequests, atInput, atOutput, atTokens, atUSD} { // as byUnit orders them
			if (*amounts)(m).has(at) {
				w.integer(string(at.unit()), m.known[at])
			}
		}
		w.close('}')
		return
	}
	for _, amount := range slices.SortedFunc(slices.Values((*amounts)(m).list()), byUnit) {
		w.keyOf(string(amount.Unit))
		w.out = strconv.AppendInt(w.out, amount.N, 10)
	}
	w.close('}')
}

func (w *bookWriter) textIf(name, text string) {
	if text != "" {
		w.text(name, text)
	}
}

func (w *bookWriter) integerIf(name string, n int64) {
	if n != 0 {
		w.integer(name, n)
	}
}

func (w *bookWriter) momentIf(name string, m moment) {
	if m != 0 {
		w.moment(name, m)
	}
}

func (w *bookWriter) amountsIf(name string, m *amountsOf) {
	if !m.IsZero() {
		w.amounts(name, m)
	}
}

func (w *bookWriter) trueIf(name string, is bool) {
	if is {
		w.key(name)
		w.out = append(w.out, "true"...)
	}
}

func (w *bookWriter) book(form *bookJSON) {
	w.open('{')
	w.moment("clock", form.Clock)
	if len(form.Accounts) > 0 {
		w.key("accounts")
		w.open('{')
		for _, text := range slices.Sorted(maps.Keys(form.Accounts)) {
			w.keyOf(text)
			account := form.Accounts[text]
			w.account(&account)
		}
		w.close('}')
	}
	w.list("holds", len(form.Holds), func(i int) { w.hold(&form.Holds[i]) })
	w.list("expired", len(form.Expired), func(i int) { w.hold(&form.Expired[i]) })
	w.list("settled", len(form.Settled), func(i int) {
		w.openFlat('{')
		w.text("id", form.Settled[i].ID)
		w.moment("until", form.Settled[i].Until)
		w.close('}')
	})
	if form.Today != nil {
		w.key("today")
		w.today(form.Today)
	}
	if form.finished != nil {
		w.key("finished")
		w.out = append(w.out, form.finished...)
	} else {
		w.list("finished", len(form.Finished), func(i int) { w.any(form.Finished[i]) })
	}
	w.list("alerts", len(form.Alerts), func(i int) { w.delivery(&form.Alerts[i]) })
	w.momentIf("closed_until", form.ClosedUntil)
	if from := form.Imported; from != nil {
		w.key("imported")
		w.openFlat('{')
		w.integer("used", from.Used)
		w.integer("reserved", from.Reserved)
		w.momentIf("ends", from.Ends)
		w.close('}')
	}
	w.list("batches", len(form.Batches), func(i int) {
		w.openFlat('{')
		w.number("writer", form.Batches[i].Writer)
		w.key("number")
		w.out = strconv.AppendUint(w.out, form.Batches[i].Number, 10)
		w.moment("at", form.Batches[i].At)
		w.close('}')
	})
	if form.Tally != (tallyJSON{}) {
		w.key("tally")
		w.openFlat('{')
		w.integer("granted", form.Tally.Granted)
		w.integer("settled", form.Tally.Settled)
		w.integer("expired", form.Tally.Expired)
		w.close('}')
	}
	w.close('}')
}

func (w *bookWriter) account(form *accountJSON) {
	window, err := form.Window.MarshalText()
	if err != nil {
		w.err = err
	}
	w.open('{')
	w.text("unit", string(form.Unit))
	w.text("window", string(window))
	w.integer("max", form.Max)
	w.moment("seen", form.Seen)
	w.integerIf("used", form.Used)
	w.integerIf("reserved", form.Reserved)
	w.momentIf("start", form.Start)
	w.momentIf("end", form.End)
	w.momentIf("since", form.Since)
	w.momentIf("opened", form.Opened)
	w.momentIf("first", form.First)
	w.integerIf("part", form.Part)
	w.list("slices", len(form.Slices), func(i int) {
		w.openFlat('{')
		w.moment("start", form.Slices[i].Start)
		w.integer("used", form.Slices[i].Used)
		w.close('}')
	})
	if len(form.Alerted) > 0 {
		w.key("alerted")
		w.open('{')
		for _, threshold := range slices.SortedFunc(maps.Keys(form.Alerted), byText) {
			w.moment(strconv.Itoa(threshold), form.Alerted[threshold])
		}
		w.close('}')
	}
	w.integerIf("armed", form.Armed)
	w.close('}')
}

// byText orders numbers as encoding/json orders the members of an object.
func byText(x, y int) int { return strings.Compare(strconv.Itoa(x), strconv.Itoa(y)) }

func (w *bookWriter) hold(form *holdJSON) {
	w.open('{')
	w.key("key")
	w.out = strconv.AppendUint(append(w.out, '"'), form.Key.writer, 36)
	w.out = strconv.AppendUint(append(w.out, '-'), form.Key.number, 36)
	w.out = append(w.out, '"')
	w.textIf("id", form.ID)
	w.textIf("name", form.Name)
	w.list("quotas", len(form.Quotas), func(i int) { w.string(form.Quotas[i]) })
	w.amounts("amounts", &form.Amounts)
	if form.Asked != nil {
		w.amounts("asked", form.Asked)
	}
	w.list("estimated", len(form.Estimated), func(i int) { w.string(string(form.Estimated[i])) })
	w.momentIf("granted", form.Granted)
	w.moment("expires", form.Expires)
	if w.ttl.span != form.TTL {
		w.ttl = spanText{form.TTL, time.Duration(form.TTL).String()}
	}
	w.text("ttl", w.ttl.text)
	w.momentIf("charged", form.Charged)
	w.integerIf("joined", form.Joined)
	w.trueIf("released", form.Released)
	w.trueIf("found", form.Found)
	w.close('}')
}

func (w *bookWriter) today(form *todayJSON) {
	w.open('{')
	w.moment("start", form.Start)
	w.moment("end", form.End)
	w.momentIf("last", form.Last)
	w.amountsIf("used", &form.Used)
	w.amountsIf("estimated", &form.Estimated)
	w.amountsIf("peak_reserved", &form.Peak)
	w.integerIf("calls", form.Calls)
	w.integerIf("denied", form.Denied)
	w.integerIf("expired", form.Expired)
	if len(form.DeniedBy) > 0 {
		w.key("denied_by")
		w.open('{')
		for _, by := range slices.Sorted(maps.Keys(form.DeniedBy)) {
			w.keyOf(by)
			w.out = strconv.AppendInt(w.out, form.DeniedBy[by], 10)
		}
		w.close('}')
	}
	w.list("alerts", len(form.Alerts), func(i int) { w.string(form.Alerts[i]) })
	w.close('}')
}

func (w *bookWriter) delivery(form *deliveryJSON) {
	w.open('{')
	w.key("alert")
	w.any(form.Alert)
	if form.Writer != 0 {
		w.number("writer", form.Writer)
	}
	w.momentIf("claimed", form.Claimed)
	w.close('}')
}
