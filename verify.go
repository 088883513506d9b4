package quota

import (
	"errors"
	"fmt"
)

// verify checks the laws of the ledger: what is reserved is what the open holds have set aside, nothing is negative, and
// every reservation granted is open, settled or expired.
func (b *Book) verify() error {
	var errs []error
	broken := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("quota: %s: "+format, append([]any{printable(b.name)}, args...)...))
	}
	for i := range b.accounts {
		a := &b.accounts[i]
		check := *a
		check.held, check.reserved = 0, 0
		check.slices = nil
		for _, s := range a.slices {
			check.slices = append(check.slices, slice{start: s.start, used: s.used})
		}
		if a.window.kind == kindRefill {
			check.reserved = a.reserved
		}
		if err := b.reserve(&check); err != nil {
			broken("%s: %w", a.text, err)
		}
		if check.held != a.held || check.reserved != a.reserved {
			broken("%s: %d held and %d reserved, but the open holds are %d and %d",
				a.text, a.held, a.reserved, check.held, check.reserved)
		}
		if a.used < 0 || a.reserved < 0 {
			broken("%s: %d used, %d reserved", a.text, a.used, a.reserved)
		}
		if a.window.kind != kindRolling {
			continue
		}
		var used int64
		for i, s := range a.slices {
			used = saturatingAdd(used, s.used)
			if s.reserved != check.slices[i].reserved || s.used < 0 {
				broken("%s: a slice has %d used, %d reserved", a.text, s.used, s.reserved)
			}
		}
		if used != a.used {
			broken("%s: %d used, but its slices have %d", a.text, a.used, used)
		}
	}
	for unit, total := range b.today.each {
		var open int64
		for h := range b.holds.each {
			n, _ := h.amounts.of(unit.place(), unit)
			open = saturatingAdd(open, n)
		}
		if open != total.open || total.estimated > total.used || total.used < 0 || total.estimated < 0 {
			broken("today's %s: %d used, %d estimated, %d open, but the open holds are %d",
				unit, total.used, total.estimated, total.open, open)
		}
	}
	open := 0
	for h := range b.holds.each {
		open++
		if slot := h.slot - 1; slot < 0 || slot >= len(b.holds.expiry) || b.holds.expiry[slot] != (expiring{h.expires, h}) {
			broken("hold %s is open, but does not expire when it should", h.key.text(""))
		}
	}
	if s := b.holds; s != nil {
		if s.open() != open || s.byKey != nil && len(s.byKey) != open {
			broken("%d holds are open, %d can expire and %d are known by their key", open, s.open(), len(s.byKey))
		}
		late := 0
		for h := s.ended.oldest; h != nil; h = h.newer {
			late++
		}
		if s.late != late || s.lateByKey != nil && len(s.lateByKey) != late {
			broken("%d holds have expired, not %d, and %d are known by their key", late, s.late, len(s.lateByKey))
		}
	}
	if t := b.tally(); t.granted != t.settled+t.expired+int64(open) {
		broken("%d reservations granted, but %d settled, %d expired and %d open", t.granted, t.settled, t.expired, open)
	}
	return errors.Join(errs...)
}
