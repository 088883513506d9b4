package quota_test

import (
	"context"
	"fmt"
	"time"

	"example.com/quota"
	"example.com/quota/quotatest"
)

// Wait returns when the quota has room: here when the call in flight is done. Bound it by the context.
func ExampleQuotaTracker_Wait() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		Quotas:      []quota.Quota{{Name: "github_models", Limits: []quota.Limit{{Max: 1, Window: quota.InFlight()}}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tracker.Close()

	first, err := tracker.Reserve(ctx, "github_models")
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error)
	go func() {
		second, err := tracker.Wait(ctx, "github_models")
		if err == nil {
			fmt.Println("the second is dispatched")
			err = second.Commit(ctx)
		}
		done <- err
	}()

	fmt.Println("the first is done")
	if err := first.Commit(ctx); err != nil {
		fmt.Println(err)
	}
	if err := <-done; err != nil {
		fmt.Println(err)
	}
	// Output:
	// the first is done
	// the second is dispatched
}

// With MaxWait, a request that would have to wait longer is refused at once.
func ExampleQuotaTracker_Acquire_maxWait() {
	ctx := context.Background()
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		Clock:       quotatest.NewClock(time.Date(2026, 1, 26, 12, 0, 0, 0, time.UTC)),
		Quotas:      []quota.Quota{{Name: "gemini_cli", Limits: []quota.Limit{{Max: 1, NoAlerts: true}}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tracker.Close()
	if err := tracker.RecordUsage(ctx, "gemini_cli"); err != nil {
		fmt.Println(err)
		return
	}
	_, err = tracker.Acquire(ctx, quota.Request{All: []string{"gemini_cli"}, MaxWait: 30 * time.Second})
	fmt.Println(err)
	// Output:
	// quota: gemini_cli: 1 does not fit into its requests per day (1 used and 0 reserved of 1), try again at 2026-01-27T00:00:00Z
}

// A clock turned by hand shows what happens at midnight, without waiting for it. In tests of your own,
// quotatest.New(t, quotas...) makes the tracker and the clock in one call.
func ExampleClock() {
	ctx := context.Background()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		fmt.Println(err)
		return
	}
	// The night in which clocks go forward: that day has 23 hours.
	clock := quotatest.NewClock(time.Date(2026, 3, 29, 0, 0, 0, 0, berlin))
	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		Clock:       clock,
		Location:    berlin,
		Quotas:      []quota.Quota{{Name: "gemini_cli", Limits: []quota.Limit{{Max: 10, NoAlerts: true}}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer tracker.Close()

	if err := tracker.RecordUsage(ctx, "gemini_cli", quota.Requests(10)); err != nil {
		fmt.Println(err)
		return
	}
	clock.Advance(23*time.Hour - time.Nanosecond)
	fmt.Println(tracker.CanUse("gemini_cli"))
	clock.Advance(time.Nanosecond)
	fmt.Println(tracker.CanUse("gemini_cli"))
	for _, day := range tracker.History("gemini_cli") {
		fmt.Println(day.Day.Format(time.DateOnly), day.Used[quota.UnitRequests])
	}
	// Output:
	// false
	// true
	// 2026-03-29 10
}
