package quotatest

import (
	"errors"
	"fmt"
	"time"

	"example.com/quota"
)

// timeRules are about the time of the store. Where it has none, Tx.Now is always zero, and there is little to keep.
func timeRules() []rule {
	return []rule{
		{text: "the time of a store is one for all, and does not run back", run: tellsOneTime},
		{text: "Until is compared with the time at which the change is written", run: comparesUntilLate},
	}
}

// tellsOneTime has two stores change one book in turn.
func tellsOneTime(t *trial) error {
	var last time.Time
	for i := range 20 {
		var now time.Time
		one := t.both()[i%2]
		if _, err := one.update([]string{sumQuota}, func(tx *quota.Tx) error {
			now = tx.Now
			return t.states.use(tx.Books, sumQuota, 1)
		}); err != nil {
			return fmt.Errorf("Update failed: %w", err)
		}
		switch {
		case i > 0 && now.IsZero() != last.IsZero():
			return fmt.Errorf("Tx.Now was %v and then %v: a store has a time of its own, or none", last, now)
		case now.Before(last):
			return fmt.Errorf("Tx.Now was %v in an Update of %q, and is %v in a later one: whoever changes a book must not be "+
				"shown a time before that at which it was changed, take the server's and not that of the process", last, sumQuota, now)
		}
		last = now
	}
	return nil
}

// comparesUntilLate lets the end of what fn decides come while fn still runs.
func comparesUntilLate(t *trial) error {
	const ends, takes = 20 * time.Millisecond, 100 * time.Millisecond
	before, err := t.charge(1, sumQuota)
	if err != nil {
		return err
	}
	var times []time.Time
	tooMany := errors.New("fn is run for ever")
	left, err := t.update([]string{sumQuota}, func(tx *quota.Tx) error {
		if times = append(times, tx.Now); len(times) > 100 {
			return tooMany
		}
		if wrong := difference("Books", before, mustTrees(tx.Books)); wrong != "" {
			return fmt.Errorf("run %d of fn is shown: %s; give each run fresh books", len(times), wrong)
		}
		if len(times) > 1 || tx.Now.IsZero() {
			return t.states.use(tx.Books, sumQuota, 1)
		}
		tx.Until = tx.Now.Add(ends)
		time.Sleep(takes)
		return t.states.use(tx.Books, sumQuota, 100)
	})
	switch {
	case err != nil:
		return fmt.Errorf("Update failed: %w", err)
	case times[0].IsZero():
		return t.agree(left)
	case len(times) == 1:
		return fmt.Errorf("fn was shown %v, set Until %v later and took %v, and what it decided was kept: "+
			"compare Until with the store's time when the change is written", times[0], ends, takes)
	case times[1].Before(times[0].Add(ends)):
		return fmt.Errorf("fn was shown %v, set Until %v later, and is run again at %v: wait for it, or show the new time",
			times[0], ends, times[1])
	}
	return t.agree(left)
}

// mustTrees are the books that a store has handed out, which wrongTx has found to be good.
func mustTrees(books map[string]*quota.Book) map[string]any {
	trees, err := bookTrees(books)
	if err != nil {
		return map[string]any{"": err.Error()}
	}
	return trees
}
