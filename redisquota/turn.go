package redisquota

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Many processes that write one book at once mostly lose to each other. After a few conflicts in a row they take turns: a
// store asks for the next piece of time that nobody has asked for yet, and in it the script lets no other write the same
// books. So a process makes its batches one after the other on a book that it knows, and the others wait without asking.
// A turn that is not used any more is given back, and those who wait are told. Nothing depends on turns but who comes
// first: what is written is compared as ever, and a turn ends by itself.
const (
	turnAfter    = 5 // conflicts in a row
	shortestTurn = 20 * time.Millisecond
	longestTurn  = decisionLife     // of a client that is as far away as a decision may be on its way
	turnsOfWork  = 3                // how often what fn and the way to the server take fits into a turn
	idleTurn     = time.Millisecond // after which a turn is given back, at least
	longestAwait = time.Second      // without asking again

	shortestListen = 2 * time.Millisecond // BLPOP waits for ever below one before Redis 7.0.8
)

// A turn is what a store knows of its own.
type turn struct {
	until time.Time   // it may have one
	users int         // Updates that run
	idle  *time.Timer // gives it back; nil: nothing does
}

// awaitTurn returns when this store has its turn, which begins after that time, or sooner when others give theirs back.
func (s *Store) awaitTurn(ctx context.Context, wait time.Duration) {
	asked := time.Now()
	begins := asked.Add(min(wait, longestAwait))
	for left := time.Until(begins); left > 0 && ctx.Err() == nil; left = time.Until(begins) {
		if left < shortestListen {
			sleep(ctx, left)
			break
		}
		sooner, told := s.listen(ctx, left)
		if !told {
			sleep(ctx, time.Until(begins))
			break
		}
		begins = time.Now().Add(min(sooner, longestAwait-time.Since(asked)))
	}
	s.mu.Lock()
	s.turn.until = time.Now().Add(longestTurn)
	s.mu.Unlock()
}

// listen waits until somebody tells in what time this store has its turn. Nobody does so in time, or at all where the
// server or the user has no BLPOP.
func (s *Store) listen(ctx context.Context, most time.Duration) (wait time.Duration, told bool) {
	most = max(most, time.Millisecond)                        // before Redis 7.0.8 less than that is for ever
	ctx, cancel := context.WithTimeout(ctx, most+longestTurn) // the connection may be gone without anybody having been told
	defer cancel()
	answer := make(chan []string, 1)
	timer := time.NewTimer(most)
	defer timer.Stop()
	go func() { // as in send, for clients that do not heed ctx
		cmd := redis.NewStringSliceCmd(ctx, "blpop", s.prefix+":lease:"+s.id, strconv.FormatFloat(most.Seconds(), 'f', 6, 64))
		_ = s.client.Process(ctx, cmd)
		answer <- cmd.Val()
	}()
	select {
	case message := <-answer:
		if len(message) != 2 {
			return 0, false
		}
		micros, err := strconv.ParseInt(message[1], 10, 64)
		return time.Duration(micros) * time.Microsecond, err == nil
	case <-timer.C: // the server bounds it too, unless the connection has gone
		return 0, false
	case <-ctx.Done():
		return 0, false
	}
}

// stay keeps a turn while an Update runs. What it returns ends that: the turn is given back if no other comes soon, that is,
// in the time that this one has taken, for callers on a busy machine take their time too.
func (s *Store) stay() (end func(took time.Duration)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn.users++
	if s.turn.idle != nil {
		s.turn.idle.Stop()
		s.turn.idle = nil
	}
	return func(took time.Duration) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.turn.users--; s.turn.users == 0 && time.Now().Before(s.turn.until) {
			s.turn.idle = time.AfterFunc(min(max(took, idleTurn), shortestTurn/2), s.leave)
		}
	}
}

// leave gives a turn back that nobody uses.
func (s *Store) leave() {
	s.mu.Lock()
	used := s.turn.users > 0
	if !used {
		s.turn.until = time.Time{}
	}
	s.mu.Unlock()
	if used {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), longestTurn)
	defer cancel()
	c := &command{script: s.scripts.commit, token: newToken()}
	c.args = append(c.args, "", "", s.id, 0, "leave", "", 0)
	// What the reply says of the data is left to the next Update, and a turn that could not be given back ends by itself.
	_, _ = s.eval(ctx, c, "evalsha", c.script.hash, s.arguments(c))
}
