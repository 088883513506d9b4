package quota

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
)

// A holdList is a list of holds. Most of a book that is in use are holds, and each process that shares it reads them again
// and again: what bookWriter has written is read at a tenth of what encoding/json takes. A list that differs in anything
// is left to encoding/json, so that both read the same and refuse the same.
type holdList []holdJSON

func (list *holdList) UnmarshalJSON(data []byte) error {
	r := holdReader{data: data}
	if holds := r.list(); !r.strange {
		*list = append(*list, holds...)
		return nil
	}
	return (*checked[holdJSON])(list).UnmarshalJSON(data)
}

// A holdReader reads the holds in JSON that is sound. Whatever the writer does not write is strange to it, and its results
// mean nothing then: what it does not know it does not read, and stands where something else is expected.
type holdReader struct {
	data    []byte
	at      int
	strange bool
	name    string // the last, as most of the next
	ttl     span   // the last
	ttlText []byte
}

func (r *holdReader) list() (holds []holdJSON) {
	r.expect('[')
	for !r.strange {
		one := r.hold()
		r.strange = r.strange || one.check() != nil
		holds = append(holds, one)
		if !r.next(',') {
			break
		}
	}
	r.expect(']')
	return holds
}

// hold reads one. As with encoding/json the last of two members of one name counts.
func (r *holdReader) hold() (form holdJSON) {
	r.expect('{')
	for !r.strange {
		name := r.text()
		r.expect(':')
		switch string(name) {
		case "key":
			form.Key = r.key()
		case "id":
			form.ID = string(r.text())
		case "name":
			if text := r.text(); string(text) != r.name { // what is the same needs no room of its own
				r.name = string(text)
			}
			form.Name = r.name
		case "quotas":
			form.Quotas = texts[string](r)
		case "amounts":
			form.Amounts = r.amounts()
		case "asked":
			asked := r.amounts()
			form.Asked = &asked
		case "estimated":
			form.Estimated = texts[Unit](r)
		case "granted":
			form.Granted = r.moment()
		case "expires":
			form.Expires = r.moment()
		case "ttl":
			form.TTL = r.span()
		case "charged":
			form.Charged = r.moment()
		case "joined":
			form.Joined = r.integer()
		case "released":
			form.Released = r.yes()
		case "found":
			form.Found = r.yes()
		}
		if !r.next(',') {
			break
		}
	}
	r.expect('}')
	return form
}

func (r *holdReader) key() keyText {
	writer, number, _ := bytes.Cut(r.text(), []byte{'-'})
	var key holdKey
	var err1, err2 error
	key.writer, err1 = strconv.ParseUint(string(writer), 36, 64)
	key.number, err2 = strconv.ParseUint(string(number), 36, 64)
	r.strange = r.strange || err1 != nil || err2 != nil
	return keyText(key)
}

func (r *holdReader) amounts() (m amountsOf) {
	var few [8]Amount
	list := few[:0]
	r.expect('{')
	for !r.strange {
		unit := unitOf(r.text())
		r.expect(':')
		list = append(list, Amount{unit, r.integer()})
		if !r.next(',') {
			break
		}
	}
	r.expect('}')
	slices.SortStableFunc(list, func(x, y Amount) int { return cmp.Compare(x.Unit, y.Unit) })
	for _, one := range list { // of one that is named twice the last counts
		at := one.Unit.place()
		if at == elsewhere && checkUnit(one.Unit) != "" {
			r.strange = true
		}
		(*amounts)(&m).set(at, one.Unit, one.N)
	}
	return m
}

// unitOf returns a unit without room of its own, if it is one of the library's.
func unitOf(text []byte) Unit {
	switch unit := Unit(text); unit {
	case UnitRequests:
		return UnitRequests
	case UnitTokens:
		return UnitTokens
	case UnitInputTokens:
		return UnitInputTokens
	case UnitOutputTokens:
		return UnitOutputTokens
	case UnitUSD:
		return UnitUSD
	default:
		return unit
	}
}

func texts[T ~string](r *holdReader) (list []T) {
	r.expect('[')
	for !r.strange {
		list = append(list, T(r.text()))
		if !r.next(',') {
			break
		}
	}
	r.expect(']')
	return list
}

func (r *holdReader) moment() (m moment) {
	if text := r.text(); !r.strange && m.UnmarshalText(text) != nil {
		r.strange = true
	}
	return m
}

func (r *holdReader) span() span {
	if text := r.text(); !bytes.Equal(text, r.ttlText) || r.ttlText == nil {
		r.ttlText = text
		r.strange = r.ttl.UnmarshalText(text) != nil || r.strange
	}
	return r.ttl
}

func (r *holdReader) yes() bool {
	const yes = "true"
	r.space()
	if !bytes.HasPrefix(r.data[r.at:], []byte(yes)) {
		return false
	}
	r.at += len(yes)
	return true
}

// integer reads one that is not negative.
func (r *holdReader) integer() (n int64) {
	const most = 18 // digits, of which no number is too large
	r.space()
	begin := r.at
	for r.at < len(r.data) && r.data[r.at]-'0' <= 9 && r.at-begin < most {
		n = 10*n + int64(r.data[r.at]-'0')
		r.at++
	}
	return n
}

// text reads one that stands for itself.
func (r *holdReader) text() []byte {
	r.expect('"')
	for begin := r.at; r.at < len(r.data) && !r.strange; {
		c := r.data[r.at]
		r.at++
		switch {
		case c == '"':
			return r.data[begin : r.at-1]
		case c == '\\' || c > '~':
			r.strange = true
		}
	}
	return nil
}

// next reports whether c follows, and reads it.
func (r *holdReader) next(c byte) bool {
	r.space()
	if r.at == len(r.data) || r.data[r.at] != c {
		return false
	}
	r.at++
	return true
}

func (r *holdReader) expect(c byte) { r.strange = !r.next(c) || r.strange }

func (r *holdReader) space() {
	for r.at < len(r.data) && (r.data[r.at] == ' ' || r.data[r.at] == '\n') {
		r.at++
	}
}
