// Package quota keeps an AI orchestrator inside its quotas. Routing code asks it before a task is dispatched; it holds
// the amount, records what was really used, warns once at 50, 80 and 90 percent, and remembers all of it across restarts,
// crashes and several processes.
//
//	tracker, err := quota.New(ctx, quota.Config{Quotas: quotas}) // the state is kept in .memory/quota_state.json
//	...
//	r, err := tracker.Reserve(ctx, "gemini", quota.Tokens(4000)) // before the call
//	...
//	defer r.Commit(ctx)                     // charges what was held, if nothing else settles it
//	...
//	err = r.Commit(ctx, quota.Tokens(1200)) // after it: what it really used
//
// # Quotas, limits and amounts
//
// A [Quota] is what one provider account allows, by name: zero or more limits. A [Limit] is so much of a unit in a
// window, and is named everywhere by its text: "requests per day", "tokens per 1m0s", "requests in flight". A call names
// an [Amount] of each unit it needs and is one request unless it says otherwise. A limit whose unit a call does not name
// is not asked, unless the limit has an Estimate. Money is counted in picoUSD, so that tokens x price is exact.
//
// A name that no quota, alias or template bears is [ErrUnknownQuota]: a typo is not an unlimited quota.
//
// # Reserving and settling
//
// [QuotaTracker.CanUse] and [QuotaTracker.Check] are advice; only a reservation decides. It is admitted by every limit of
// every quota it names, or refused with an [ExceededError] that says which limit, how full, and when to try again.
// [QuotaTracker.Acquire] takes everything that can be said about a reservation: several quotas at once, candidates with
// estimates of their own, an ID under which a repeated call gets the same reservation, how long to wait.
//
// A [Reservation] is settled once: [Reservation.Commit] with what was used, or [Reservation.Release] where nothing was
// sent. Commit without amounts says "sent, outcome unknown" and charges what was held. What nobody settles expires, and
// is charged too ([ChargeExpired]). Without a handle, [QuotaTracker.RecordUsage] settles the oldest matching
// reservations. Use handles or RecordUsage for one quota; where both are used, usage may count twice but is never lost.
//
// # Windows
//
// [Daily], [Weekly], [Monthly] and [Lifetime] are budgets: a call in flight when the window turns counts on both sides
// until it is settled. [Every], [Rolling], [Refill] and [Session] are rates: a call counts in the window in which it was
// admitted. [InFlight] counts open reservations. Days begin where their time zone says, and have 23 or 25 hours when the
// clocks change.
//
// # Alerts
//
// Each threshold of each limit alerts once per window, also across restarts and processes. [Config.OnAlert] runs after
// the crossing has been saved and before the call that crossed returns, outside every lock; where another call is
// delivering already, that one delivers this alert too, after its own. A slow one delays the call: hand the alert to a
// buffered channel.
//
// # Promises
//
// At the moment a reservation is granted, what is used, reserved and asked for is at most the Max of every limit that is
// not soft: with any number of goroutines, after a crash, across the turn of a window and with several processes on one
// state. When Reserve, Commit or RecordUsage has returned nil, a power cut does not undo it. Nothing waits for ever.
//
// # What is not promised
//
// Usage larger than what was held is recorded in full and may pass the limit; it then blocks new reservations. An alert
// is delivered again, with the same ID, when its process dies between saving the crossing and saving that it was
// delivered, or when its callback takes over a minute. A state damaged from outside may fall back to the generation
// before. A clock wrongly set forward over a turn opens the next window early. Rates count a call when it is admitted: one
// that is dispatched much later lands in the provider's next window. [Config.FlushInterval] trades durability for speed:
// a crash then loses what was not saved, and with it usage that was acknowledged. What is weaker on Windows, on macOS and
// on network file systems, [JSONFile] says.
//
// # Files
//
// Without a [Persistence] of its own a tracker keeps its state in one readable JSON file, see [JSONFile]. Each save writes
// the whole of it, so a save costs time in proportion to the state.
package quota
