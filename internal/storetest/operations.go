package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/quota"
)

// An operation is one call of both trackers. What it does is drawn before, so that it does the same to both.
type operation struct {
	text   string
	quotas []string // whose state it may have changed
	grants bool     // it may return a new reservation
	run    func(context.Context, *side) (answer string, err error)
}

const grantedAnswer = "granted"

// draw chooses the next operation.
func (s *sequence) draw() operation {
	name, dice := s.name(), s.random.IntN(100)
	switch {
	case dice < 16:
		return s.acquire(quota.Request{All: []string{name}, Amounts: s.amounts(1)})
	case dice < 20:
		return s.acquire(quota.Request{All: []string{name, s.name(), s.name()}, Amounts: s.amounts(1)})
	case dice < 24:
		return s.acquire(quota.Request{Any: []quota.Candidate{
			{Quota: name}, {Quota: s.name(), Amounts: s.amounts(1)}, {Quota: s.name()},
		}, Amounts: s.amounts(1)})
	case dice < 32:
		id := s.random.IntN(len(taskQuotas))
		return s.acquire(quota.Request{
			All: taskQuotas[id], ID: fmt.Sprint("task ", id), Amounts: []quota.Amount{quota.Tokens(int64(1+s.random.IntN(2)) * 50)},
			TTL: s.duration(),
		})
	case dice < 50 && s.handles > 0:
		return s.settle()
	case dice < 54 && s.handles > 0:
		return s.find()
	case dice < 62:
		list := s.amounts(0)
		return call(fmt.Sprintf("RecordUsage(%s, %v)", name, list), name, func(ctx context.Context, t *quota.QuotaTracker) error {
			return t.RecordUsage(ctx, name, list...)
		})
	case dice < 65:
		list := s.amounts(0)
		return call(fmt.Sprintf("Release(%s, %v)", name, list), name, func(ctx context.Context, t *quota.QuotaTracker) error {
			return t.Release(ctx, name, list...)
		})
	case dice < 69:
		return s.observe(name)
	case dice < 70:
		// Of a user of whom nothing counts, a Reset leaves nothing on a store.
		return call(fmt.Sprintf("use and Reset(%s)", name), name, func(ctx context.Context, t *quota.QuotaTracker) error {
			return errors.Join(t.RecordUsage(ctx, name), t.Reset(ctx, name))
		})
	case dice < 72:
		return s.reconfigure()
	case dice < 77:
		return s.ask(name)
	case dice < 79 && !s.clock().Before(s.latest):
		return s.reopen()
	default:
		return s.turn()
	}
}

// name chooses a quota: now and then by an alias, or one that does not exist.
func (s *sequence) name() string {
	names := []string{"calls", "calls", "burst", "burst", "slow", "user:ann", "user:bob", "c", "free", "nobody"}
	return names[s.random.IntN(len(names))]
}

// taskQuotas are what each of the callers' IDs is for.
var taskQuotas = [][]string{{"calls"}, {"burst"}, {"calls", "burst"}, {"user:ann"}, {"slow", "user:bob"}}

// amounts chooses what a call names, now and then something invalid.
func (s *sequence) amounts(least int64) (list []quota.Amount) {
	if s.random.IntN(60) == 0 {
		return []quota.Amount{quota.Requests(-1)}
	}
	if s.random.IntN(2) == 0 {
		list = append(list, quota.Requests(least+s.random.Int64N(5)))
	}
	switch s.random.IntN(5) {
	case 0:
		list = append(list, quota.Tokens(least+s.random.Int64N(300)))
	case 1:
		list = append(list, quota.InputTokens(least+s.random.Int64N(200)), quota.OutputTokens(s.random.Int64N(100)))
	case 2:
		list = append(list, quota.USD(float64(s.random.IntN(200))/100))
	case 3:
		list = append(list, quota.Amount{Unit: "images", N: least + s.random.Int64N(3)})
	}
	return list
}

func (s *sequence) duration() time.Duration {
	return []time.Duration{0, 6 * grid, time.Hour, 5 * time.Hour, 30 * time.Hour, 15 * time.Minute}[s.random.IntN(6)]
}

func (s *sequence) acquire(req quota.Request) operation {
	op := operation{text: fmt.Sprintf("Acquire(%+v)", req), grants: true, quotas: slices.Clone(req.All)}
	for _, candidate := range req.Any {
		op.quotas = append(op.quotas, candidate.Quota)
	}
	op.run = func(ctx context.Context, s *side) (string, error) {
		r, err := s.tracker.Acquire(ctx, req)
		if err != nil {
			return answer(err), nil
		}
		s.handles = append(s.handles, r)
		return grantedAnswer + describe(r), nil
	}
	return op
}

func describe(r *quota.Reservation) string {
	return fmt.Sprintf(" by %s of %q, %v, until %v", r.Quota(), r.Quotas(), r.Amounts(), r.ExpiresAt())
}

// handle chooses a reservation, rather one of the last.
func (s *sequence) handle() int {
	if s.random.IntN(3) > 0 {
		return max(0, s.handles-1-s.random.IntN(8))
	}
	return s.random.IntN(s.handles)
}

// settle settles or extends a reservation. One that has expired long ago may be forgotten: surely when its quota has followed
// its configuration anew, and not when limits that nobody has configured any more decide it.
func (s *sequence) settle() operation {
	i, dice, list, ttl := s.handle(), s.random.IntN(10), s.amounts(0), max(grid, s.duration())
	op := operation{text: fmt.Sprintf("settle %d, %d, %v", i, dice, list), quotas: everywhere}
	r := s.memory.handles[i]
	long := r != nil && s.latest.Sub(r.ExpiresAt()) > day-time.Hour
	gone := r == nil || long && slices.ContainsFunc(r.Quotas(), s.unsettled)
	op.run = func(ctx context.Context, s *side) (string, error) {
		if gone {
			return "gone", nil
		}
		if long {
			if err := s.tracker.SetQuotas(ctx, s.config.Quotas); err != nil {
				return "", err
			}
		}
		switch r := s.handles[i]; {
		case dice < 4:
			return answer(r.Commit(ctx, list...)), nil
		case dice < 6:
			return answer(r.Commit(ctx)), nil
		case dice < 8:
			return answer(r.Release(ctx)), nil
		default:
			err := r.Extend(ctx, ttl)
			return answer(err) + describe(r), nil
		}
	}
	return op
}

// unsettled reports whether a quota has had a limit that it has not now and that is perhaps not dropped yet.
func (s *sequence) unsettled(name string) bool {
	if strings.HasPrefix(name, "user:") {
		name = "user:*"
	}
	now := make(shapes)
	now.use(s.quotas, s.latest)
	for limit, last := range s.had {
		if _, has := now[limit]; !has && strings.HasPrefix(limit, name+"/") && s.latest.Sub(last) < surelyDropped {
			return true
		}
	}
	return false
}

// everywhere are the quotas that a reservation may be of.
var everywhere = []string{"calls", "burst", "slow", "user:ann", "user:bob", "free"}

// find looks an open reservation up by its ID.
func (s *sequence) find() operation {
	i, told := s.handle(), s.random.IntN(2) == 0
	op := operation{text: fmt.Sprintf("Reservation(%d)", i), quotas: everywhere}
	op.run = func(ctx context.Context, s *side) (string, error) {
		if s.handles[i] == nil {
			return "gone", nil
		}
		var where []string
		if told {
			where = s.handles[i].Quotas()
		}
		r, err := s.tracker.Reservation(ctx, s.handles[i].ID(), where...)
		if err != nil {
			return answer(err), nil
		}
		s.handles[i] = r
		return "found" + describe(r), nil
	}
	return op
}

func (s *sequence) observe(name string) operation {
	remaining := s.random.Int64N(60)
	seen := quota.Observation{}
	switch s.random.IntN(4) {
	case 0:
		seen.RetryAfter = time.Duration(1+s.random.IntN(30)) * grid
	case 1:
		seen.Remaining, seen.Unit = &remaining, quota.UnitTokens
	case 2:
		seen.Remaining, seen.Window = &remaining, quota.Daily(nil)
	default:
		seen.Remaining = &remaining
	}
	return call(fmt.Sprintf("Observe(%s, %s)", name, inJSON(seen)), name, func(ctx context.Context, t *quota.QuotaTracker) error {
		return t.Observe(ctx, name, seen)
	})
}

// reconfigure uses every quota, before and after it sets other limits: that a limit was configured when a quota was only
// looked at is remembered in memory and nowhere else.
func (s *sequence) reconfigure() operation {
	s.had.use(s.quotas, s.latest)
	quotas := s.had.draw(s.random, s.latest)
	s.quotas = quotas
	op := operation{text: "use everything, before and after SetQuotas(" + inJSON(quotas) + ")", quotas: everywhere}
	op.run = func(ctx context.Context, s *side) (string, error) {
		used := s.useEverything(ctx)
		s.config.Quotas = quotas
		set := answer(s.tracker.SetQuotas(ctx, quotas))
		return used + set + ", " + s.useEverything(ctx), nil
	}
	return op
}

func (s *side) useEverything(ctx context.Context) (answers string) {
	for _, name := range everywhere {
		answers += answer(s.tracker.RecordUsage(ctx, name)) + ", "
	}
	return answers
}

func (s *sequence) ask(name string) operation {
	list := s.amounts(1)
	op := operation{text: fmt.Sprintf("Check(%s, %v)", name, list)}
	op.run = func(_ context.Context, s *side) (string, error) {
		d := s.tracker.Check(name, list...)
		return fmt.Sprint(s.tracker.CanUse(name, list...), " ", answer(d.Err), inJSON(d)), nil
	}
	return op
}

// reopen closes the tracker on the store, and goes on with another one. The reservations are found again by their IDs; so
// they are in memory, too. What is reserved afterwards is not as old as what was before: of two as old as each other, made
// by different trackers, either may count as the older.
func (s *sequence) reopen() operation {
	op := operation{text: "reopen", quotas: everywhere}
	op.run = func(ctx context.Context, s *side) (string, error) {
		if s.subject != nil {
			if err := s.close(); err != nil {
				return "", err
			}
			if err := s.open(ctx); err != nil {
				return "", err
			}
		}
		var found strings.Builder
		for i, r := range s.handles {
			if r == nil {
				continue
			}
			again, err := s.tracker.Reservation(ctx, r.ID(), r.Quotas()...)
			if s.handles[i] = again; again == nil {
				fmt.Fprintf(&found, "\n    %d not: %s", i, answer(err))
			} else {
				fmt.Fprintf(&found, "\n    %d%s", i, describe(again))
			}
		}
		s.clock.Advance(grid)
		return "found" + found.String(), nil
	}
	return op
}

// useEverything uses every quota, with which a sequence begins: what was only refused by a quota without a book does not
// show in every store before it is saved.
func (s *sequence) useEverything() operation {
	return operation{text: "use everything", quotas: everywhere, run: func(ctx context.Context, s *side) (string, error) {
		return s.useEverything(ctx), nil
	}}
}

// turn turns the clocks, forward, or, where the tracker's clock is what counts, now and then back by less than a day.
func (s *sequence) turn() operation {
	switch dice := s.random.IntN(40); {
	case dice < 4:
		return s.turnBy(grid * time.Duration(s.random.IntN(30*360)))
	case dice == 4:
		return s.turnBy(24 * time.Hour * time.Duration(1+s.random.IntN(5)))
	case dice < 7 && !s.subject.Timed:
		// A clock that has been a day ahead was wrong, and windows begin anew: when somebody first looks, in memory.
		most := s.clock().Add(22 * time.Hour).Sub(s.latest)
		return s.turnBack(time.Duration(s.random.Int64N(int64(most))).Truncate(grid))
	}
	return s.turnBy(grid * time.Duration(1+s.random.IntN(90)))
}

// turnBy flushes before: on a store, a refusal is counted in the day in which it is saved.
func (s *sequence) turnBy(by time.Duration) operation {
	return operation{text: fmt.Sprintf("turn the clock by %v", by), run: func(ctx context.Context, s *side) (string, error) {
		err := s.tracker.Flush(ctx)
		s.clock.Advance(by)
		return answer(err), nil
	}}
}

// turnBack uses every quota, and then turns the clocks back: how late it was when a quota was only looked at is remembered in
// memory and nowhere else.
func (s *sequence) turnBack(by time.Duration) operation {
	op := operation{text: fmt.Sprintf("use everything and turn the clock back by %v", by), quotas: everywhere}
	op.run = func(ctx context.Context, s *side) (string, error) {
		used := s.useEverything(ctx)
		s.clock.Set(s.clock.Now().Add(-by))
		return used, nil
	}
	return op
}

// call makes an operation of a call of one quota that returns nothing but an error.
func call(text, name string, f func(context.Context, *quota.QuotaTracker) error) operation {
	return operation{text: text, quotas: []string{name}, run: func(ctx context.Context, s *side) (string, error) {
		return answer(f(ctx, s.tracker)), nil
	}}
}

// answer is an error as far as it must be the same on both sides: what it is, and every detail of a refusal.
func answer(err error) string {
	if err == nil {
		return "ok"
	}
	var is []string
	for _, sentinel := range []error{
		quota.ErrExceeded, quota.ErrUnknownQuota, quota.ErrInvalidAmount, quota.ErrInvalidRequest, quota.ErrInvalidConfig,
		quota.ErrSettled, quota.ErrNoReservation, quota.ErrIDConflict, quota.ErrNotSaved, quota.ErrPending, quota.ErrConflict,
		quota.ErrCorruptState, quota.ErrNewerState, quota.ErrLocked, quota.ErrClosed,
	} {
		if errors.Is(err, sentinel) {
			is = append(is, sentinel.Error())
		}
	}
	var refused *quota.ExceededError
	switch {
	case errors.As(err, &refused):
		is = append(is, inJSON(refused), err.Error())
		for _, one := range refused.Unwrap() {
			is = append(is, inJSON(one))
		}
	case len(is) == 0 || errors.Is(err, quota.ErrNotSaved):
		is = append(is, err.Error())
	}
	return strings.Join(is, ", ")
}
