package quota_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// Ask before a task is dispatched, hold what it needs, record what it really used.
func Example() {
	ctx := context.Background()
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(), // leave it out to keep the state in .memory/quota_state.json
		Clock:       quotatest.NewClock(time.Date(2026, 1, 26, 17, 48, 0, 0, time.UTC)),
		Quotas: []quota.Quota{{
			Name:    "gemini_cli",
			Aliases: []string{"gemini"},
			Limits:  []quota.Limit{{Max: 1500}}, // requests per day
		}},
		OnAlert: func(a quota.Alert) { fmt.Println("alert:", a) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tracker.Close()

	if err := tracker.RecordUsage(ctx, "gemini", quota.Requests(749)); err != nil {
		fmt.Println(err)
		return
	}
	r, err := tracker.Reserve(ctx, "gemini")
	if err != nil {
		fmt.Println(err) // which limit, how full, when to try again
		return
	}
	// The call to the provider goes here.
	if err := r.Commit(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Print(tracker.DisplayStatus())
	// Output:
	// alert: gemini_cli has used 50% of its requests per day: 750/1500, resets in 6h 12m
	// gemini_cli  requests per day                       resets in 6h 12m
	//   [███████████████░░░░░░░░░░░░░░░]  50.0 %   750/1500   alerted 50
}

// Reserve before the call, and let a deferred Commit charge what nothing else has settled: a call whose outcome nobody
// knows has used its quota. Commit with amounts says what was really used.
func ExampleQuotaTracker_Reserve() {
	ctx := context.Background()
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		Quotas: []quota.Quota{{Name: "openai_api", Limits: []quota.Limit{
			{Unit: quota.UnitTokens, Max: 10_000, Window: quota.Lifetime(), NoAlerts: true},
		}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tracker.Close()

	// call stands for the provider's client.
	call := func(answer error) (tokens int64, err error) { return 1200, answer }

	ask := func(answer error) error {
		r, err := tracker.Reserve(ctx, "openai_api", quota.Tokens(4000))
		if err != nil {
			return err
		}
		defer r.Commit(ctx) // harmless when the reservation has been settled before

		used, err := call(answer)
		if err != nil {
			return err // sent, outcome unknown: the deferred Commit charges the 4000 held
		}
		return r.Commit(ctx, quota.Tokens(used)) // 1200 charged, 2800 given back
	}

	for _, answer := range []error{nil, errors.New("connection lost"), nil} {
		err := ask(answer)
		status, _ := tracker.Status("openai_api")
		fmt.Println(err, "- used:", status.Limits[0].Used, "reserved:", status.Limits[0].Reserved)
	}
	status, _ := tracker.Status("openai_api")
	fmt.Println("of which estimated:", status.Today.Estimated[quota.UnitTokens])
	// Output:
	// <nil> - used: 1200 reserved: 0
	// connection lost - used: 5200 reserved: 0
	// <nil> - used: 6400 reserved: 0
	// of which estimated: 4000
}

// A hundred tasks at once and room for forty: the reservations decide, so exactly forty are dispatched.
func ExampleQuotaTracker_Reserve_parallel() {
	ctx := context.Background()
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		Quotas: []quota.Quota{{Name: "github_models", Limits: []quota.Limit{
			{Max: 40, Window: quota.Lifetime(), NoAlerts: true},
		}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tracker.Close()

	var tasks sync.WaitGroup
	for range 100 {
		tasks.Go(func() {
			r, err := tracker.Reserve(ctx, "github_models")
			if err != nil {
				return // refused: another provider, later, or not at all
			}
			defer r.Commit(ctx)
			// The call to the provider goes here.
		})
	}
	tasks.Wait()

	status, _ := tracker.Status("github_models")
	fmt.Println("dispatched:", status.Limits[0].Used, "refused:", status.Today.Denied)
	// Output:
	// dispatched: 40 refused: 60
}

// One call may count against several limits: it is admitted by all of them or by none.
func ExampleQuotaTracker_Reserve_severalLimits() {
	ctx := context.Background()
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		Quotas: []quota.Quota{{Name: "claude_api", Limits: []quota.Limit{
			{Unit: quota.UnitRequests, Max: 50, Window: quota.Refill(time.Minute)},
			{Unit: quota.UnitInputTokens, Max: 30_000, Window: quota.Refill(time.Minute)},
			{Unit: quota.UnitOutputTokens, Max: 8_000, Window: quota.Refill(time.Minute)},
			{Unit: quota.UnitUSD, Max: 5 * quota.Dollar, Window: quota.Monthly(nil, 1)},
			{Unit: quota.UnitRequests, Max: 4, Window: quota.InFlight()},
		}}},
		Clock: quotatest.NewClock(time.Date(2026, 1, 26, 12, 0, 0, 0, time.UTC)),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tracker.Close()

	_, err = tracker.Reserve(ctx, "claude_api",
		quota.InputTokens(20_000), quota.OutputTokens(2_000), quota.USD(0.09))
	fmt.Println(err)
	_, err = tracker.Reserve(ctx, "claude_api",
		quota.InputTokens(15_000), quota.OutputTokens(2_000), quota.USD(0.075))
	fmt.Println(err)
	// Output:
	// <nil>
	// quota: claude_api: 15000 does not fit into its input_tokens per refill 1m0s (0 used and 20000 reserved of 30000), try again at 2026-01-26T12:00:10Z
}

// Without a handle: RecordUsage settles the oldest reservations that match it, so that a reservation whose handle was
// lost does not stay open.
func ExampleQuotaTracker_RecordUsage() {
	ctx := context.Background()
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		Quotas:      []quota.Quota{{Name: "gemini_cli", Limits: []quota.Limit{{Max: 1500, Window: quota.Lifetime()}}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tracker.Close()

	show := func(what string) {
		status, _ := tracker.Status("gemini_cli")
		l := status.Limits[0]
		fmt.Printf("%-24s used %d, reserved %d, remaining %d\n", what, l.Used, l.Reserved, l.Remaining)
	}
	if _, err := tracker.Reserve(ctx, "gemini_cli", quota.Requests(500)); err != nil {
		fmt.Println(err)
		return
	}
	show("500 reserved:")
	if err := tracker.RecordUsage(ctx, "gemini_cli", quota.Requests(300)); err != nil {
		fmt.Println(err)
	}
	show("300 of them used:")
	if err := tracker.RecordUsage(ctx, "gemini_cli", quota.Requests(250)); err != nil {
		fmt.Println(err)
	}
	show("250 more, 50 unreserved:")
	// Output:
	// 500 reserved:            used 0, reserved 500, remaining 1000
	// 300 of them used:        used 300, reserved 200, remaining 1000
	// 250 more, 50 unreserved: used 550, reserved 0, remaining 950
}

// What a provider reports about itself lowers the room that the tracker believes in, and never raises it. A 429 with a
// Retry-After closes the quota until then.
func ExampleQuotaTracker_Observe() {
	ctx := context.Background()
	clock := quotatest.NewClock(time.Date(2026, 1, 26, 12, 0, 0, 0, time.UTC))
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		Clock:       clock,
		Quotas: []quota.Quota{{Name: "openrouter", Limits: []quota.Limit{
			{Max: 50, Window: quota.Daily(time.UTC), NoAlerts: true},
		}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tracker.Close()

	// The response said that 8 requests are left today: somebody else uses the account too.
	remaining := int64(8)
	err = tracker.Observe(ctx, "openrouter", quota.Observation{
		Unit: quota.UnitRequests, Window: quota.Daily(time.UTC), Remaining: &remaining,
	})
	fmt.Println(err, tracker.CanUse("openrouter", quota.Requests(8)), tracker.CanUse("openrouter", quota.Requests(9)))

	// The next one was a 429 with Retry-After: 30.
	err = tracker.Observe(ctx, "openrouter", quota.Observation{RetryAfter: 30 * time.Second})
	fmt.Println(err, tracker.Check("openrouter").Err)

	clock.Advance(30 * time.Second)
	fmt.Println(tracker.CanUse("openrouter"))
	// Output:
	// <nil> true false
	// <nil> quota: openrouter: the provider has closed it, try again at 2026-01-26T12:00:30Z
	// true
}
