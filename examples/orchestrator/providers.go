package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"example.com/quota"
)

// builtinQuotas is a free tier and two paid accounts, small enough that an hour of real traffic fills them.
func builtinQuotas() []quota.Quota {
	return []quota.Quota{
		{Name: "gemini_free", Limits: []quota.Limit{
			{Unit: quota.UnitRequests, Max: 25, Window: quota.Daily(nil)},
			{Unit: quota.UnitTokens, Max: 30_000, Window: quota.Refill(time.Minute)},
		}},
		{Name: "mistral_api", Limits: []quota.Limit{
			{Unit: quota.UnitUSD, Max: 1 * quota.Dollar, Window: quota.Daily(nil)},
			{Unit: quota.UnitTokens, Max: 400_000, Window: quota.Every(time.Minute)},
			{Unit: quota.UnitRequests, Max: 200, Window: quota.InFlight()},
		}},
		{Name: "claude_api", Limits: []quota.Limit{
			{Unit: quota.UnitUSD, Max: 100 * quota.Dollar, Window: quota.Monthly(nil, 1)},
			{Unit: quota.UnitTokens, Max: 400_000, Window: quota.Every(time.Minute)},
		}},
	}
}

// A provider is where tasks can go. Its name is that of its quota.
type provider struct {
	name                    string
	inputPrice, outputPrice int64 // picoUSD per token
}

// providersOf returns the providers behind quotas. The prices are examples, not anybody's price list.
func providersOf(quotas []quota.Quota) []provider {
	providers := make([]provider, len(quotas))
	for i, q := range quotas {
		switch p := &providers[i]; q.Name {
		case "gemini_free":
			*p = provider{name: q.Name}
		case "mistral_api":
			*p = provider{name: q.Name, inputPrice: 100_000, outputPrice: 400_000} // $0.10 and $0.40 per million
		case "claude_api":
			*p = provider{name: q.Name, inputPrice: 3_000_000, outputPrice: 15_000_000} // $3 and $15 per million
		default:
			*p = provider{name: q.Name, inputPrice: 1_000_000, outputPrice: 2_000_000} // $1 and $2 per million
		}
	}
	return providers
}

// use is what a call with so many tokens uses of the provider.
func (p provider) use(input, output int64) use {
	return use{requests: 1, input: input, output: output, pico: input*p.inputPrice + output*p.outputPrice}
}

// A use is how much of a provider one or more calls use.
type use struct{ requests, input, output, pico int64 }

// amounts says it in the tracker's terms.
func (u use) amounts() []quota.Amount {
	amounts := []quota.Amount{quota.Requests(u.requests), quota.InputTokens(u.input), quota.OutputTokens(u.output)}
	if u.pico > 0 {
		amounts = append(amounts, quota.PicoUSD(u.pico))
	}
	return amounts
}

func (u use) plus(v use) use {
	return use{u.requests + v.requests, u.input + v.input, u.output + v.output, u.pico + v.pico}
}

func (u use) minus(v use) use {
	return use{u.requests - v.requests, u.input - v.input, u.output - v.output, u.pico - v.pico}
}

// candidates lists where a task can go, cheapest first, each provider with its own estimate.
func candidates(providers []provider, t task) []quota.Candidate {
	sorted := slices.Clone(providers)
	price := func(p provider) int64 { return p.use(t.prompt, t.maxOutput).pico }
	slices.SortStableFunc(sorted, func(a, b provider) int { return cmp.Compare(price(a), price(b)) })
	list := make([]quota.Candidate, len(sorted))
	for i, p := range sorted {
		list[i] = quota.Candidate{Quota: p.name, Amounts: p.use(t.prompt, t.maxOutput).amounts()}
	}
	return list
}

var (
	errNotSent = errors.New("failed before it was sent")
	errUnknown = errors.New("connection lost, outcome unknown")
)

// A simulation stands for the providers' clients.
type simulation struct {
	clock *fastClock
	seed  uint64
}

// call makes the task's call and returns the tokens generated. It takes 0.2 s and 20 ms per token. Of a hundred calls
// two fail with errNotSent and one with errUnknown; which ones, the seed decides. A call cut short by ctx is errUnknown.
func (s simulation) call(ctx context.Context, t task) (output int64, err error) {
	switch chance := randomOf(s.seed, t.number, forOutcome).IntN(100); {
	case chance < 2:
		return 0, errNotSent
	case chance == 2:
		err = errUnknown
	}
	if s.clock.sleep(ctx, 200*time.Millisecond+time.Duration(t.output)*20*time.Millisecond) != nil {
		return 0, errUnknown
	}
	return t.output, err
}
