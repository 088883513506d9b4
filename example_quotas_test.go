package quota_test

import (
	"fmt"

	"example.com/quota"
)

// Quotas in a file of configuration. Whatever is wrong with it is an error that names the place.
func ExampleParseQuotas() {
	quotas, err := quota.ParseQuotas([]byte(`[
		{"name": "gemini", "aliases": ["g"], "limits": [
			{"unit": "requests", "max": 1500, "window": "day in America/Los_Angeles"},
			{"unit": "tokens", "max": 1000000, "window": "1m0s", "estimate": 2000, "alert_thresholds": [80, 95]},
			{"unit": "usd", "max": "5.00", "window": "month"}]}]`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, limit := range quotas[0].Limits {
		fmt.Printf("%s, max %d\n", limit, limit.Max) // dollars in picoUSD
	}

	_, err = quota.ParseQuotas([]byte(`[{"name": "gemini", "limits": [{"max": 1500, "windw": "day"}]}]`))
	fmt.Println(err)
	_, err = quota.ParseQuotas([]byte(`[{"name": "gemini", "limits": [{"unit": "usd", "max": 5}]}]`))
	fmt.Println(err)
	// Output:
	// requests per day in America/Los_Angeles, max 1500
	// tokens per 1m0s, max 1000000
	// usd per month, max 5000000000000
	// quota: invalid configuration: quotas[0] "gemini": limits[0]: unknown field "windw", use unit, max, window, soft, estimate, alert_thresholds, no_alerts
	// quota: invalid configuration: quotas[0] "gemini": limits[0].max of usd must be a decimal string, write "5.00", not 5
}

// Windows are values: compare them, write them as text and read them again.
func ExampleParseWindow() {
	for _, text := range []string{"day in Asia/Tokyo", "month from 15", "rolling 5h", "every tuesday"} {
		window, err := quota.ParseWindow(text)
		if err != nil {
			fmt.Println("not a window:", text) // err lists the forms there are
			continue
		}
		fmt.Println(window)
	}
	// Output:
	// day in Asia/Tokyo
	// month from 15
	// rolling 5h0m0s
	// not a window: every tuesday
}
