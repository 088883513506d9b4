// Fleet is three orchestrators, each a process of its own, that share the quotas of one provider account through Redis.
//
// The program starts itself three times. Each process has more tasks than its share; together they get exactly what the
// account allows. At the end it shows how everything stands, and checks it against what the processes say they did.
//
//	REDIS_ADDR=127.0.0.1:6379 go run ./examples/fleet
//
// Run it again and it goes on from what is there: nothing is left of today's requests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"example.com/quota"
	"example.com/quota/redisquota"
)

const (
	orchestrators = 3
	tasks         = 60  // of each: together more than a day allows
	inFlight      = 4   // at once, of each
	estimate      = 800 // tokens that a task is taken to need

	member = "FLEET_MEMBER" // says which orchestrator a process is; "": it is the one that starts them
)

// account is what the provider allows, the whole fleet together.
func account() []quota.Quota {
	return []quota.Quota{{
		Name: "gemini",
		Limits: []quota.Limit{
			{Max: 150},
			{Unit: quota.UnitTokens, Max: 200_000, Window: quota.Every(time.Hour), Estimate: estimate},
			{Max: 6, Window: quota.InFlight()},
		},
	}}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from then on a second Ctrl-C kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run does everything main does and returns the exit code: 0 done, 1 the totals do not match or something failed.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("fleet", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", cmpOr(os.Getenv("REDIS_ADDR"), "127.0.0.1:6379"), "address or URL of the server")
	namespace := flags.String("namespace", "fleet", "where the fleet keeps its state")
	if err := flags.Parse(args); err != nil {
		return 1
	}
	work := lead
	if os.Getenv(member) != "" {
		work = serve
	}
	if err := work(ctx, *addr, *namespace, stdout); err != nil {
		fmt.Fprintln(stderr, "fleet:", err)
		return 1
	}
	return 0
}

func cmpOr(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// open returns a tracker on the shared state, and what closes it.
func open(ctx context.Context, addr, namespace string, onAlert func(quota.Alert)) (*quota.QuotaTracker, func() error, error) {
	opts := &redis.Options{Addr: addr}
	if strings.Contains(addr, "://") {
		var err error
		if opts, err = redis.ParseURL(addr); err != nil {
			return nil, nil, err
		}
	}
	opts.ContextTimeoutEnabled = true
	client := redis.NewClient(opts)
	store, err := redisquota.New(ctx, client, redisquota.Options{Namespace: namespace, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	tracker, err := quota.New(ctx, quota.Config{Persistence: store, Quotas: account(), OnAlert: onAlert})
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return tracker, func() error { return errors.Join(tracker.Close(), client.Close()) }, nil
}

// report is what an orchestrator says at its end.
const report = "orchestrator %d: %d tasks sent, %d refused, %d tokens"

// lead starts the orchestrators and compares what they say with what the store says.
func lead(ctx context.Context, addr, namespace string, stdout io.Writer) (err error) {
	tracker, closeAll, err := open(ctx, addr, namespace, func(quota.Alert) {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	before, _ := tracker.Status("gemini")

	program, err := os.Executable()
	if err != nil {
		return err
	}
	var outputs [orchestrators]strings.Builder
	var commands []*exec.Cmd
	for i := range outputs {
		command := exec.CommandContext(ctx, program, "-addr", addr, "-namespace", namespace)
		command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
		command.Env = append(os.Environ(), fmt.Sprintf("%s=%d", member, i+1))
		command.Stdout, command.Stderr = &outputs[i], &outputs[i]
		if err := command.Start(); err != nil {
			return err
		}
		commands = append(commands, command)
	}
	var sent, tokens int64
	for i, command := range commands {
		waitErr := command.Wait()
		fmt.Fprint(stdout, outputs[i].String())
		if waitErr != nil {
			return fmt.Errorf("orchestrator %d: %w", i+1, waitErr)
		}
		lines := strings.Split(strings.TrimSpace(outputs[i].String()), "\n")
		var who, did, refused, used int64
		if _, err := fmt.Sscanf(lines[len(lines)-1], report, &who, &did, &refused, &used); err != nil {
			return fmt.Errorf("orchestrator %d has not said what it did: %w", i+1, err)
		}
		sent, tokens = sent+did, tokens+used
	}

	if err := tracker.Refresh(ctx); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\n%s\n", tracker.DisplayStatus())
	after, _ := tracker.Status("gemini")
	counted := after.Limits[0].Used - before.Limits[0].Used
	countedTokens := after.Limits[1].Used - before.Limits[1].Used
	if counted != sent || countedTokens != tokens {
		return fmt.Errorf("the store has counted %d requests and %d tokens, the fleet has sent %d and %d",
			counted, countedTokens, sent, tokens)
	}
	fmt.Fprintf(stdout, "The fleet has sent %d of its %d tasks: all that the account allowed, and what the store has counted.\n",
		sent, orchestrators*tasks)
	return tracker.Verify()
}

// serve is one orchestrator.
func serve(ctx context.Context, addr, namespace string, stdout io.Writer) (err error) {
	number := os.Getenv(member)
	var mu sync.Mutex // guards what follows, and stdout
	var sent, refused, tokens int64
	tracker, closeAll, err := open(ctx, addr, namespace, func(a quota.Alert) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(stdout, "orchestrator %s is told: %s\n", number, a)
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()

	queue := make(chan int, tasks)
	for i := range tasks {
		queue <- i
	}
	close(queue)
	var group sync.WaitGroup
	errs := make([]error, inFlight)
	for i := range errs {
		group.Go(func() {
			for range queue {
				used, err := dispatch(ctx, tracker)
				mu.Lock()
				switch {
				case errors.Is(err, quota.ErrExceeded):
					refused++
				case err != nil:
					errs[i] = err
				default:
					sent++
					tokens += used
				}
				mu.Unlock()
				if errs[i] != nil {
					return
				}
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Fprintf(stdout, strings.Replace(report, "%d", "%s", 1)+"\n", number, sent, refused, tokens)
	return nil
}

// dispatch sends one task, when the account has room for it, and returns how many tokens it has used. It waits for calls
// in flight to end, but not for tomorrow.
func dispatch(ctx context.Context, tracker *quota.QuotaTracker) (tokens int64, err error) {
	held, err := tracker.Acquire(ctx, quota.Request{All: []string{"gemini"}, MaxWait: time.Minute})
	if err != nil {
		return 0, err
	}
	// Whatever happens to the call, it may have been counted by the provider. Where it is settled below, this does nothing.
	defer func() { _ = held.Commit(context.WithoutCancel(ctx)) }()

	used := simulate()
	return used, held.Commit(ctx, quota.Tokens(used))
}

// simulate stands for the call of a provider.
func simulate() (tokens int64) {
	time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
	return estimate/2 + rand.Int64N(estimate)
}
