package quota_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// The first provider with room gets the task, each asked with its own estimate and price.
func ExampleQuotaTracker_Acquire() {
	ctx := context.Background()
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		Quotas: []quota.Quota{
			{Name: "gemini_free", Limits: []quota.Limit{{Max: 2, Window: quota.Lifetime(), NoAlerts: true}}},
			{Name: "claude_api", Limits: []quota.Limit{
				{Unit: quota.UnitUSD, Max: 1 * quota.Dollar, Window: quota.Lifetime(), NoAlerts: true},
			}},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tracker.Close()

	const inputPrice, outputPrice = 3_000_000, 15_000_000 // picoUSD per token: $3 and $15 per million
	for range 3 {
		const input, most = 1200, 400
		r, err := tracker.Acquire(ctx, quota.Request{Any: []quota.Candidate{
			{Quota: "gemini_free"},
			{Quota: "claude_api", Amounts: []quota.Amount{
				quota.InputTokens(input), quota.OutputTokens(most),
				quota.PicoUSD(input*inputPrice + most*outputPrice),
			}},
		}})
		if err != nil {
			fmt.Println(err)
			return
		}
		// Dispatch to r.Quota(). It answered with 100 tokens.
		const output = 100
		var actual []quota.Amount
		if r.Quota() == "claude_api" {
			actual = []quota.Amount{
				quota.InputTokens(input), quota.OutputTokens(output),
				quota.PicoUSD(input*inputPrice + output*outputPrice),
			}
		}
		if err := r.Commit(ctx, actual...); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("went to", r.Quota())
	}
	status, _ := tracker.Status("claude_api")
	fmt.Printf("claude_api has cost $%.4f\n", float64(status.Limits[0].Used)/float64(quota.Dollar))
	// Output:
	// went to gemini_free
	// went to gemini_free
	// went to claude_api
	// claude_api has cost $0.0051
}

// With the task's own ID, a repeated call gets the same reservation instead of a second one, also after a restart.
func ExampleQuotaTracker_Acquire_identity() {
	ctx := context.Background()
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		Quotas:      []quota.Quota{{Name: "gemini_cli", Limits: []quota.Limit{{Max: 100, Window: quota.Lifetime()}}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tracker.Close()

	request := quota.Request{All: []string{"gemini_cli"}, ID: "job-17"}
	first, err := tracker.Acquire(ctx, request)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := tracker.Acquire(ctx, request); err != nil {
		fmt.Println(err)
		return
	}
	status, _ := tracker.Status("gemini_cli")
	fmt.Println("reserved:", status.Limits[0].Reserved)

	if err := first.Commit(ctx); err != nil {
		fmt.Println(err)
		return
	}
	_, err = tracker.Acquire(ctx, request)
	fmt.Println(errors.Is(err, quota.ErrSettled))
	// Output:
	// reserved: 1
	// true
}

// When no candidate has room, the error says when the first one will, and why each of them refused.
func ExampleQuotaTracker_ReserveAny() {
	ctx := context.Background()
	pacific, err := time.LoadLocation("America/Los_Angeles")
	if err != nil {
		fmt.Println(err)
		return
	}
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		Clock:       quotatest.NewClock(time.Date(2026, 1, 26, 20, 0, 0, 0, time.UTC)),
		Quotas: []quota.Quota{
			{Name: "gemini", Limits: []quota.Limit{{Max: 250, Window: quota.Daily(pacific), NoAlerts: true}}},
			{Name: "openrouter", Limits: []quota.Limit{{Max: 50, Window: quota.Daily(time.UTC), NoAlerts: true}}},
			{Name: "claude", Limits: []quota.Limit{{Unit: quota.UnitTokens, Max: 1000, Window: quota.Refill(time.Minute)}}},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tracker.Close()
	for name, used := range map[string]int64{"gemini": 250, "openrouter": 50} {
		if err := tracker.RecordUsage(ctx, name, quota.Requests(used)); err != nil {
			fmt.Println(err)
			return
		}
	}

	_, err = tracker.ReserveAny(ctx, []string{"gemini", "openrouter", "claude"}, quota.Tokens(4000))
	var refused *quota.ExceededError
	if !errors.As(err, &refused) {
		fmt.Println("not a refusal:", err)
		return
	}
	fmt.Println("soonest:", refused.Quota, "at", refused.RetryAt.Format(time.RFC3339))
	for _, each := range refused.Unwrap() {
		fmt.Println(each)
	}
	// Output:
	// soonest: openrouter at 2026-01-27T00:00:00Z
	// quota: gemini: 1 does not fit into its requests per day in America/Los_Angeles (250 used and 0 reserved of 250), try again at 2026-01-27T08:00:00Z
	// quota: openrouter: 1 does not fit into its requests per day (50 used and 0 reserved of 50), try again at 2026-01-27T00:00:00Z
	// quota: claude: 4000 is more than the whole limit of 1000 tokens per refill 1m0s: ask for less or raise the limit
}

// A call that must fit the team's budget and the user's: all or none. "user:*" is a template, which gives each user a
// budget of its own from the first use.
func ExampleQuotaTracker_ReserveAll() {
	ctx := context.Background()
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		Quotas: []quota.Quota{
			{Name: "team", Limits: []quota.Limit{
				{Unit: quota.UnitUSD, Max: 10 * quota.Dollar, Window: quota.Lifetime(), NoAlerts: true},
			}},
			{Name: "user:*", Limits: []quota.Limit{
				{Unit: quota.UnitUSD, Max: 2 * quota.Dollar, Window: quota.Lifetime(), NoAlerts: true},
			}},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tracker.Close()

	for _, user := range []string{"ada", "ada", "ben"} {
		r, err := tracker.ReserveAll(ctx, []string{"team", "user:" + user}, quota.USD(1.5))
		if err != nil {
			fmt.Println(err)
			continue
		}
		if err := r.Commit(ctx, quota.USD(1.25)); err != nil {
			fmt.Println(err)
		}
	}
	for _, name := range []string{"team", "user:ada", "user:ben"} {
		status, _ := tracker.Status(name)
		fmt.Printf("%s: $%.2f\n", name, float64(status.Limits[0].Used)/float64(quota.Dollar))
	}
	// Output:
	// quota: user:ada: $1.50 does not fit into its usd per lifetime ($1.25 used and $0.00 reserved of $2.00), which never start again: raise the limit
	// team: $2.50
	// user:ada: $1.25
	// user:ben: $1.25
}
