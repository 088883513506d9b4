package quota_test

import (
	"context"
	"fmt"

	"example.com/quota"
)

// OnAlert delays the call that crossed the threshold, so it only passes the alert on. A goroutine of its own sends it to
// the chat, however long that takes.
func ExampleAlert() {
	ctx := context.Background()
	alerts := make(chan quota.Alert, 16)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for a := range alerts {
			fmt.Println("to the chat:", a) // a.ID tells a repeated delivery from a new alert
		}
	}()

	tracker, err := quota.New(ctx, quota.Config{
		Persistence: quota.InMemory(),
		OnAlert: func(a quota.Alert) {
			select {
			case alerts <- a:
			default: // the chat is far behind: better one alert less than an orchestrator that stands still
			}
		},
		Quotas: []quota.Quota{{Name: "claude_api", Limits: []quota.Limit{
			{Unit: quota.UnitUSD, Max: 100 * quota.Dollar, Window: quota.Lifetime()},
		}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, dollars := range []float64{49.99, 0.02, 35, 1} {
		if err := tracker.RecordUsage(ctx, "claude_api", quota.USD(dollars)); err != nil {
			fmt.Println(err)
		}
	}
	if err := tracker.Close(); err != nil {
		fmt.Println(err)
	}
	close(alerts)
	<-sent
	// Output:
	// to the chat: claude_api has used 50% of its usd per lifetime: $50.01/$100.00
	// to the chat: claude_api has used 80% of its usd per lifetime: $85.01/$100.00
}
