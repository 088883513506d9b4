package redisquota

import (
	"context"
	_ "embed" // of the scripts
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"example.com/quota/internal/form"
)

//go:embed lua/prelude.lua
var preludeLua string

//go:embed lua/commit.lua
var commitLua string

//go:embed lua/load.lua
var loadLua string

//go:embed lua/save.lua
var saveLua string

// A script is what the server runs in one step.
type script struct{ text, hash string }

type scripts struct{ commit, load, save script }

func newScripts() scripts {
	compose := func(body string) script {
		text := preludeLua + body
		return script{text, redis.NewScript(text).Hash()}
	}
	return scripts{compose(commitLua), compose(loadLua), compose(saveLua)}
}

// A command is one run of a script. Sent a second time it changes nothing more: the server knows it by its token.
type command struct {
	script          script
	token           string
	args            []any // after those of every script
	writes          bool
	decided, before time.Time // between which times the server carries it out, if it writes

	all bool // its books are what has changed since a generation, and no more is known of them

	// Of when it was sent.
	known identity
	epoch int
}

// An answer is a script's reply.
type answer struct {
	identity
	status  string
	now     time.Time
	deleted string             // the revision of the last drop
	books   map[string]version // those that the client did not know
	rest    []any              // what else the script has returned
}

// A once is a command that the client does not repeat by itself, so that one failure is one failure.
type once struct{ *redis.Cmd }

func (once) NoRetry() bool { return true }

// send sends a command once, and, where the server does not have the script, a second time with its text. It returns when
// ctx ends, whether or not the client heeds it; the client's own timeouts then end what is left.
func (s *Store) send(ctx context.Context, c *command) (*answer, error) {
	args := s.arguments(c)
	type result struct {
		value any
		err   error
	}
	done := make(chan result, 1)
	sent := time.Now()
	go func() {
		value, err := s.eval(ctx, c, "evalsha", c.script.hash, args)
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			value, err = s.eval(ctx, c, "eval", c.script.text, args)
		}
		done <- result{value, err}
	}()
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
		r.err = ctx.Err()
	}
	if r.err != nil && !errors.Is(r.err, ErrReplicas) {
		s.mu.Lock()
		s.failing = true
		s.mu.Unlock()
		if redis.HasErrorPrefix(r.err, "WRONGTYPE") {
			return nil, s.corrupt("*", r.err)
		}
		return nil, withContext(ctx, r.err)
	}
	a, err := parse(r.value)
	if err != nil {
		return nil, err
	}
	if err := s.learn(c, a, sent, time.Now()); err != nil {
		return nil, err
	}
	if a.status != "ok" && a.status != "done" {
		return a, nil
	}
	return a, r.err
}

// arguments returns those of a script, after it has noted what is known of the store as the command is sent.
func (s *Store) arguments(c *command) []any {
	s.mu.Lock()
	c.known, c.epoch = s.known, s.epoch
	s.mu.Unlock()
	return append([]any{
		s.offset().Microseconds(), c.known.dataset, c.known.generation, c.known.mark, newToken(), form.Version, c.token,
	}, c.args...)
}

// withContext names the end of ctx beside what the client has made of it.
func withContext(ctx context.Context, err error) error {
	over := ctx.Err()
	if deadline, ok := ctx.Deadline(); ok && over == nil && !time.Now().Before(deadline) {
		over = context.DeadlineExceeded
	}
	if over == nil || errors.Is(err, over) {
		return err
	}
	return fmt.Errorf("%w: %w", over, err)
}

// eval runs a script on the master of the namespace, and has it wait for replicas.
func (s *Store) eval(ctx context.Context, c *command, name, text string, args []any) (any, error) {
	keys := []any{
		s.prefix + ":meta", s.prefix + ":books", s.prefix + ":revisions", s.prefix + ":marks", s.prefix + ":lease",
		s.prefix + ":done:" + c.token, s.prefix + ":history",
	}
	list := append([]any{name, text, len(keys)}, keys...)
	cmd := once{redis.NewCmd(ctx, append(list, args...)...)}
	cmd.SetFirstKeyPos(3)
	if !c.writes || s.opts.Replicas == 0 {
		err := s.client.Process(ctx, cmd)
		return cmd.Val(), err
	}
	master, err := s.master(ctx)
	if err != nil {
		return nil, err
	}
	// WAIT counts the replicas that have what its own connection has written.
	pipe := master.Pipeline()
	_ = pipe.Process(ctx, cmd)
	received := pipe.Do(ctx, "wait", s.opts.Replicas, s.opts.ReplicaTimeout.Milliseconds())
	_, _ = pipe.Exec(ctx)
	if err := cmd.Err(); err != nil {
		s.lookAgain(ctx, err)
		return nil, err
	}
	n, err := received.Int64()
	switch {
	case err != nil:
		err = fmt.Errorf("%w: %w", ErrReplicas, err)
	case n < int64(s.opts.Replicas):
		err = fmt.Errorf("%w: %d of %d within %v", ErrReplicas, n, s.opts.Replicas, s.opts.ReplicaTimeout)
	}
	return cmd.Val(), err
}

// pipeliner is a client that sends a pipeline to one server.
type pipeliner interface{ Pipeline() redis.Pipeliner }

// master returns a client of the server that has the namespace.
func (s *Store) master(ctx context.Context) (pipeliner, error) {
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, s.prefix)
	}
	return s.client, nil
}

// lookAgain has a cluster's client look for the master again when it has asked another server.
func (s *Store) lookAgain(ctx context.Context, err error) {
	cluster, ok := s.client.(*redis.ClusterClient)
	if !ok {
		return
	}
	for _, prefix := range []string{"MOVED", "ASK", "READONLY", "CLUSTERDOWN"} {
		if redis.HasErrorPrefix(err, prefix) {
			cluster.ReloadState(ctx)
			return
		}
	}
}

// unanswered reports whether the server may have carried out, or may yet carry out, a command that ended in err. It has
// not where the server has refused it, and where it was never sent.
func unanswered(err error) bool {
	var refused redis.Error
	var network *net.OpError
	switch {
	case err == nil, errors.As(err, &refused), isVerdict(err):
		return false
	case errors.As(err, &network) && network.Op == "dial":
		return false
	}
	return !errors.Is(err, redis.ErrPoolTimeout) && !errors.Is(err, redis.ErrPoolExhausted) && !errors.Is(err, redis.ErrClosed)
}

func parse(value any) (*answer, error) {
	wrong := fmt.Errorf("the server has replied %.100v, which is no reply of the script", value)
	list, _ := value.([]any)
	if len(list) < 6 {
		return nil, wrong
	}
	var head [6]string
	for i := range head {
		text, ok := list[i].(string)
		if !ok {
			return nil, wrong
		}
		head[i] = text
	}
	now, err := strconv.ParseInt(head[1], 10, 64)
	if err != nil {
		return nil, wrong
	}
	generation, err := strconv.ParseInt(head[3], 10, 64)
	if err != nil {
		return nil, wrong
	}
	a := &answer{
		identity: identity{head[2], generation, head[4]}, status: head[0], now: time.UnixMicro(now).UTC(), deleted: head[5],
		books: map[string]version{}, rest: list[6:],
	}
	if len(a.rest) == 0 {
		return a, nil
	}
	books, err := texts(a.rest[0])
	if err != nil || len(books)%3 != 0 {
		return nil, wrong
	}
	for i := 0; i < len(books); i += 3 {
		a.books[books[i]] = version{books[i+1], []byte(books[i+2]), &reading{}}
	}
	a.rest = a.rest[1:]
	return a, nil
}

func texts(value any) ([]string, error) {
	list, ok := value.([]any)
	if !ok {
		return nil, errors.New("not a list")
	}
	all := make([]string, len(list))
	for i, one := range list {
		if all[i], ok = one.(string); !ok {
			return nil, errors.New("not a text")
		}
	}
	return all, nil
}

// text returns what else the script has returned at that place, "" if nothing.
func (a *answer) text(at int) string {
	if at >= len(a.rest) {
		return ""
	}
	text, _ := a.rest[at].(string)
	return text
}
