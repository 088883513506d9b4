// Orchestrator routes tasks to AI providers and stays inside what each provider allows.
//
// Every task is reserved on the cheapest provider with room, sent, and settled with what it really used. Only the
// providers are simulated (providers.go); how the quotas are used (run.go) is what a real orchestrator does.
//
//	go run ./examples/orchestrator                             a small list; run it again and it continues
//	go run ./examples/orchestrator -tasks tasks.jsonl          a list of your own
//	go run ./examples/orchestrator -trace trace.csv -speed 600 an hour of real traffic in six seconds
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/quota"
)

const (
	exitDone        = 0
	exitMismatch    = 1
	exitNotStarted  = 2
	exitInterrupted = 130
)

const usage = `Routes tasks to simulated AI providers and stays inside their quotas.

  orchestrator [flags]

Without -tasks or -trace it works through a small list of its own.

`

const notes = `
A task:    {"id": "t1", "prompt_tokens": 1200, "max_output_tokens": 400}
A trace:   TIMESTAMP,ContextTokens,GeneratedTokens
Ctrl-C:    settles what is in flight and saves; a second one kills.
Exit code: 0 done, 1 totals do not match or could not be saved, 2 nothing was started, 130 interrupted and saved.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from then on a second Ctrl-C kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run does everything main does and returns the exit code. Cancelling ctx is Ctrl-C.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fail := func(code int, err error) int {
		fmt.Fprintln(stderr, "orchestrator:", strings.ReplaceAll(err.Error(), "\n", "; "))
		return code
	}
	opts, err := parseOptions(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	if err != nil {
		return fail(exitNotStarted, err)
	}
	tasks, err := opts.loadTasks()
	if err != nil {
		return fail(exitNotStarted, err)
	}
	quotas, err := opts.loadQuotas()
	if err != nil {
		return fail(exitNotStarted, err)
	}

	// A callback of the tracker should return at once, so it only passes the alert on.
	alerts := make(chan quota.Alert, 64)
	out := &printer{to: stdout}
	var printing sync.WaitGroup
	printing.Go(func() {
		for alert := range alerts {
			out.printf("ALERT  %s\n", alert)
		}
	})
	defer printing.Wait()
	defer close(alerts)

	file := quota.NewJSONFile(opts.state)
	clock := startClock(ctx, file, opts.speed)
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: file,
		Quotas:      quotas,
		Clock:       clock,
		OnAlert:     func(alert quota.Alert) { alerts <- alert },
		// Long enough for a call and for saving it, which takes real time: on a fast clock that is long.
		ReservationTTL: 15*time.Minute + clock.simulated(5*time.Second),
	})
	if err != nil {
		return fail(exitNotStarted, err)
	}
	defer func() { _ = tracker.Close() }() // a second Close does nothing

	providers := providersOf(quotas)
	before := takeStock(tracker, providers)
	before.print(out, opts.state)

	o := &orchestrator{
		tracker:   tracker,
		providers: providers,
		dispatch:  simulation{clock: clock, seed: opts.seed}.call,
		clock:     clock,
		workers:   opts.workers,
		out:       out,
		perTask:   len(tasks) <= 100,
	}
	began := time.Now()
	failed := o.run(ctx, tasks)
	took := time.Since(began)

	out.printf("\n%s tasks in %.1f s, which were %s on their clock\n%s\n\n%s\n", thousands(len(tasks)),
		took.Seconds(), clock.simulated(took).Round(time.Second), o.counts.summary(), tracker.DisplayStatus())
	mismatch := before.reconcile(out, &o.counts)
	if err := errors.Join(failed, mismatch, tracker.Verify(), tracker.Close()); err != nil {
		return fail(exitMismatch, err)
	}
	out.printf("saved in %s\n", opts.state)
	if ctx.Err() != nil {
		return exitInterrupted
	}
	return exitDone
}

type options struct {
	tasks, trace, config, state string
	speed                       float64
	workers                     int
	seed                        uint64
}

func parseOptions(args []string, stdout io.Writer) (options, error) {
	var opts options
	flags := flag.NewFlagSet("orchestrator", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed by run, in one line
	flags.StringVar(&opts.tasks, "tasks", "", "`FILE` of tasks, one JSON object per line")
	flags.StringVar(&opts.trace, "trace", "", "`FILE` of recorded traffic, CSV in the Azure LLM inference format")
	flags.Float64Var(&opts.speed, "speed", 20, "run `N` times faster than real time")
	flags.StringVar(&opts.config, "config", "", "`FILE` of quotas as JSON (default: three built-in ones)")
	flags.StringVar(&opts.state, "state", quota.DefaultPath, "`FILE` that keeps the usage from run to run")
	flags.IntVar(&opts.workers, "workers", 512, "at most `N` tasks at once")
	flags.Uint64Var(&opts.seed, "seed", 8, "`N` decides what the simulated providers do")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		fmt.Fprint(stdout, notes)
		return options{}, err
	} else if err != nil {
		return options{}, fmt.Errorf("%w (-h lists the flags)", err)
	}
	switch {
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("unexpected argument %q (-h lists the flags)", flags.Arg(0))
	case opts.tasks != "" && opts.trace != "":
		return options{}, errors.New("-tasks and -trace exclude each other")
	case math.IsNaN(opts.speed) || opts.speed < 1 || opts.speed > 100_000:
		return options{}, fmt.Errorf("-speed %v is not between 1 and 100000", opts.speed)
	case opts.workers < 1 || opts.workers > 100_000:
		return options{}, fmt.Errorf("-workers %d is not between 1 and 100000", opts.workers)
	case opts.state == "":
		return options{}, errors.New("-state needs a file name")
	}
	return opts, nil
}

func (o options) loadTasks() ([]task, error) {
	switch {
	case o.trace != "":
		return readFile(o.trace, o.seed, parseTrace)
	case o.tasks != "":
		return readFile(o.tasks, o.seed, parseTasks)
	}
	return builtinTasks(o.seed), nil
}

func (o options) loadQuotas() ([]quota.Quota, error) {
	if o.config == "" {
		return builtinQuotas(), nil
	}
	data, err := os.ReadFile(o.config)
	if err != nil {
		return nil, err
	}
	quotas, err := quota.ParseQuotas(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.config, err)
	}
	if len(quotas) == 0 {
		return nil, fmt.Errorf("%s: no quotas in it", o.config)
	}
	for _, q := range quotas {
		if strings.HasSuffix(q.Name, "*") {
			return nil, fmt.Errorf("%s: %q is a template, tasks need a provider by its name", o.config, q.Name)
		}
	}
	return quotas, nil
}

// A printer lets workers and alerts share one output, a line at a time.
type printer struct {
	mu sync.Mutex
	to io.Writer
}

func (p *printer) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.to.Write(data)
}

func (p *printer) printf(format string, args ...any) {
	fmt.Fprintf(p, format, args...) // one Write
}
