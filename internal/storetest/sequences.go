package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/quota"
)

// TestSequences makes random calls of two trackers, one in memory and one on a store, and compares the answers: results,
// errors, alerts, how each quota stands, and the finished days. The tracker on the store is closed now and then, and goes
// on as another one. Both go by clocks that are turned by hand; a store with a time of its own goes by the same, see
// Place.Ahead, and the clock of its tracker is wrong by some seconds.
func TestSequences(t *testing.T, subject Subject) {
	server, seed, n := subject.Start(t), newSeed(t), numbers()
	t.Logf("seed %d: %d sequences of %d operations", seed, n.Sequences, n.Operations)
	began, granted, refused := time.Now(), 0, 0
	for i := range n.Sequences {
		s := newSequence(subject, server, seed, i)
		if err := s.run(t.Context(), n.Operations); err != nil {
			t.Fatalf("sequence %d of seed %d: %v", i, seed, err)
		}
		granted, refused = granted+s.granted, refused+s.refused
		if (i+1)%50 == 0 {
			t.Logf("%d sequences in %v", i+1, time.Since(began).Round(time.Second))
		}
	}
	if granted == 0 || refused == 0 {
		t.Fatalf("%d reservations were granted and %d refused: that tries too little", granted, refused)
	}
	t.Logf("%d reservations were granted, %d refused, in %v", granted, refused, time.Since(began).Round(time.Millisecond))
}

// A sequence is one of operations.
type sequence struct {
	subject          Subject
	random           *rand.Rand
	memory, stored   *side
	quotas           []quota.Quota
	had              shapes
	handles          int // that each side has
	granted, refused int
	latest           time.Time // that the clock has shown
	trace            []string
}

// tail is how many operations an error tells of.
const tail = 12

func newSequence(subject Subject, server Server, seed uint64, number int) *sequence {
	random := rand.New(rand.NewPCG(seed, uint64(number)))
	had := make(shapes)
	s := &sequence{subject: subject, random: random, had: had, quotas: had.draw(random, begin)}
	config := quota.Config{Quotas: s.quotas, OnExpiry: quota.ExpiryPolicy(random.IntN(2))}
	s.memory = newSide(config, begin, nil, Place{}, 0)
	place := Place{Address: server.Address, Name: fmt.Sprintf("sequence_%x_%d", seed, number)}
	skew := time.Duration(0)
	if subject.Timed {
		skew = time.Duration(random.IntN(21)-10) * time.Second
	}
	s.stored = newSide(config, begin, &subject, place, skew)
	return s
}

// run makes so many operations. Nothing of it is left when it returns.
func (s *sequence) run(ctx context.Context, operations int) (err error) {
	defer func() {
		closeErr := errors.Join(s.memory.close(), s.stored.close())
		if err = errors.Join(err, closeErr); err != nil {
			err = fmt.Errorf("%w\nafter, the last operation last:\n%s", err, strings.Join(s.trace, "\n"))
		}
	}()
	if err := errors.Join(s.memory.open(ctx), s.stored.open(ctx), s.stored.wrong()); err != nil {
		return err
	}
	for i := range operations {
		if now := s.clock(); now.After(s.latest) {
			s.latest = now
		}
		op := s.draw()
		if i == 0 {
			op = s.useEverything()
		}
		s.trace = append(s.trace[max(0, len(s.trace)-tail):], fmt.Sprintf("%5d %s %s", i, s.clock().Format(time.DateTime), op.text))
		if err := s.compare(ctx, op); err != nil {
			return err
		}
		if i%10 == 9 || i == operations-1 {
			if err := s.compareAll(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *sequence) clock() time.Time { return s.memory.clock.Now() }

// compare makes an operation on both sides.
func (s *sequence) compare(ctx context.Context, op operation) error {
	want, wantErr := op.run(ctx, s.memory)
	got, gotErr := op.run(ctx, s.stored)
	if err := errors.Join(wantErr, gotErr, s.stored.wrong()); err != nil {
		return err
	}
	s.trace[len(s.trace)-1] += ": " + want
	if err := differ("the answer", want, got); err != nil {
		return err
	}
	if op.grants {
		s.count(want)
	}
	return s.compareStates(op.quotas)
}

func (s *sequence) count(answer string) {
	if strings.HasPrefix(answer, grantedAnswer) {
		s.granted++
		s.handles++
	} else if strings.HasPrefix(answer, quota.ErrExceeded.Error()) {
		s.refused++
	}
}

// compareStates compares how quotas stand, and what alerts there were.
func (s *sequence) compareStates(names []string) error {
	for _, name := range names {
		if err := differ("how "+name+" stands", s.memory.status(name), s.stored.status(name)); err != nil {
			return err
		}
	}
	return s.compareAlerts()
}

// compareAlerts waits for those that another call, one that looks at the store from time to time, has taken on to deliver.
func (s *sequence) compareAlerts() (err error) {
	const soon = 5 * time.Second
	for end := time.Now().Add(soon); ; time.Sleep(time.Millisecond) {
		if err = differ("the alerts", s.memory.told(), s.stored.told()); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// compareAll compares all quotas and their past, and has the books verified.
func (s *sequence) compareAll() error {
	err := differ("the summary", s.memory.summary(), s.stored.summary())
	for _, name := range everywhere {
		if err == nil {
			err = differ("the past of "+name, s.memory.history(name), s.stored.history(name))
		}
	}
	return errors.Join(err, s.memory.tracker.Verify(), s.stored.tracker.Verify(), s.stored.wrong())
}

// differ returns an error that shows the lines in which two texts differ.
func differ(what, memory, stored string) error {
	if memory == stored {
		return nil
	}
	text := func(of, other string) string {
		others := strings.Split(other, "\n")
		lines := slices.DeleteFunc(strings.Split(of, "\n"), func(line string) bool { return slices.Contains(others, line) })
		return strings.Join(lines, "\n  ")
	}
	return fmt.Errorf("%s: in memory\n  %s\nand on the store\n  %s", what, text(memory, stored), text(stored, memory))
}
