package redisquota

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"example.com/quota"
)

const (
	grace        = 50 * time.Millisecond // by which the clock of this machine and the server's may drift apart in a second
	smallestWait = 2 * time.Millisecond  // before a command is sent again that was not answered; doubled each time
	longestWait  = 100 * time.Millisecond
	longestPoll  = 4 * time.Millisecond // while it is another's turn, or after a conflict
	readAttempts = 3
)

// learn takes over what a reply says of the store. It returns an error where the script has refused to look at the books.
func (s *Store) learn(c *command, a *answer, sent, received time.Time) error {
	s.mu.Lock()
	s.failing = false
	before, same := s.known, c.epoch == s.epoch
	if same {
		s.clock.learn(a.now, sent, received)
	}
	switch {
	case a.status == "lost" && same:
		s.epoch++
		s.known, s.loaded = a.identity, nil
		s.cache.clear()
	case a.status == "lost", a.status == "newer", a.status == "corrupt":
	case !same: // somebody has noticed a loss in the meantime
	default:
		if a.generation >= s.known.generation {
			s.known, s.cache.deleted = a.identity, a.deleted
		}
		if !c.all {
			s.cache.put(a.generation, a.books)
		}
	}
	s.mu.Unlock()
	switch a.status {
	case "lost":
		err := fmt.Errorf("%w: %s %s", ErrLost, s.prefix, describeLoss(before, a.identity))
		if same {
			s.opts.Logger.Error("redisquota: usage that had been saved is missing, going on from what there is",
				"store", s.prefix, "error", err)
		}
		return err
	case "newer":
		return fmt.Errorf("%w: %s", quota.ErrNewerState, s.prefix)
	case "corrupt":
		return s.corrupt("*", errors.New("a part of its keys is missing"))
	}
	return nil
}

func describeLoss(before, after identity) string {
	switch {
	case after.dataset == "":
		return fmt.Sprintf("is empty, generation %d had been saved", before.generation)
	case after.dataset != before.dataset:
		return fmt.Sprintf("is another data set, at generation %d, than the one that had been saved up to generation %d",
			after.generation, before.generation)
	case after.generation < before.generation:
		return fmt.Sprintf("has gone back to generation %d, generation %d had been saved", after.generation, before.generation)
	}
	return fmt.Sprintf("has gone back, and on to generation %d; what had been saved as generation %d is not part of it",
		after.generation, before.generation)
}

// isVerdict reports whether err is what the script says of the data, and not a failure to ask.
func isVerdict(err error) bool {
	return errors.Is(err, ErrLost) || errors.Is(err, quota.ErrNewerState) || errors.Is(err, quota.ErrCorruptState)
}

// read has a command answered that changes nothing.
func (s *Store) read(ctx context.Context, c *command) (*answer, error) {
	for attempt := 1; ; attempt++ {
		a, err := s.send(ctx, c)
		var network net.Error
		slow := errors.As(err, &network) && network.Timeout()
		if !unanswered(err) || slow || ctx.Err() != nil || attempt == readAttempts {
			return a, err
		}
	}
}

// write has a command answered that changes something. When it returns an error, the change stands or does not stand, and
// that is decided: either the server has said so, or its time has come from which on it does not carry out the command.
// For that it may stay up to a second after ctx has ended.
func (s *Store) write(ctx context.Context, c *command) (*answer, error) {
	if s.untilOver(c) <= 0 { // this process was stopped for a while: the server will say so, and what to decide on next
		c.writes = false
		return s.read(ctx, c)
	}
	// If ctx cut the connection, the outcome would be open for longer, not for less.
	sending, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.untilOver(c)+s.replicaTime())
	defer cancel()
	var open error // of a copy that the server may have carried out, or may yet
	for attempt := 0; ; attempt++ {
		a, err := s.send(sending, c)
		pause := min(smallestWait<<min(attempt, 10), longestWait)
		switch {
		case err != nil && a != nil:
			return a, err // it stands, but not on enough replicas
		case unanswered(err):
			open = err
		case err != nil && (open == nil || isVerdict(err)):
			return nil, err
		case err != nil: // an earlier copy may not have been refused
		case a.status == "busy" && open != nil:
			pause = rand.N(longestPoll)
		case a.status == "early" && (open != nil || s.ahead(c, a) <= grace):
			pause = s.ahead(c, a)
		default:
			return a, nil
		}
		over := s.untilOver(c)
		switch {
		case over <= 0 && open != nil:
			return nil, withContext(ctx, fmt.Errorf("the server has not answered in time, the change may stand or not: %w", open))
		case over <= 0:
			return a, nil
		case ctx.Err() != nil && open == nil:
			return nil, ctx.Err()
		case open != nil:
			sleep(sending, min(pause, over))
		default:
			sleep(ctx, min(pause, over))
		}
	}
}

// untilOver returns for how long the server may still carry out the command. It is behind by a moment rather than ahead.
func (s *Store) untilOver(c *command) time.Duration { return c.before.Sub(s.now()) + grace }

// ahead returns by how much a decision was ahead of the server's time.
func (s *Store) ahead(c *command, a *answer) time.Duration { return c.decided.Sub(a.now) }

func (s *Store) replicaTime() time.Duration {
	if s.opts.Replicas == 0 {
		return 0
	}
	return s.opts.ReplicaTimeout
}

func (s *Store) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock.now()
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
