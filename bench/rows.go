package main

// A row is one line of the goals: what is measured, how, and what the numbers mean.
type row struct {
	number   int
	title    string
	explains string
	measure  func(*bench) ([]finding, error)
}

// rows are in the order in which they run: those that fill the memory last among those in memory.
func rows() []row {
	return []row{
		{0, "The floor", "What no library on this machine goes below: the clock that a window needs, the lock that a count needs, " +
			"the wake-up that a shared save needs, and the cycle that replaces a file durably.", (*bench).measureFloor},
		{1, "CanUse in memory", "One question about calls, tokens and dollars at once, by the quota's name. `Allow` of x/time/rate takes one " +
			"token from one bucket that the caller holds a pointer to: it knows no names, no other units and no reasons.", (*bench).measureAsking},
		{2, "Reserve + Commit in memory", "A hold in three limits with a TTL, settled with another amount, alerts on (one has fired). x/time/rate " +
			"reserves one token of one bucket; it has no amount to correct, no expiry and no alerts.", (*bench).measureHolding},
		{3, "A refusal", "1,000 accounts at random, all of them full. Ours names the limit of three and when it has room; ulule and throttled say until when, " +
			"of one limit; x/time/rate says no. ulule counts refused calls as used.", (*bench).measureRefusing},
		{4, "A million keys", "Usage of template quotas that all exist, drawn at random, so that most are not in the processor's caches. go-limiter " +
			"takes one token of one bucket per key (map allocated for all keys, sweeper asleep). Both are filled again in processes of their own for the memory.",
			(*bench).measureManyKeys},
		{5, "A million holds", "A hold settled among a million open ones of the same quota, with lifetimes from 1 to 24 hours, and the longest " +
			"call of two callers while all of them expire at the same moment.", (*bench).measureCrowd},
		{6, "Two processors", "Two goroutines, each on a quota of its own, on one processor and on two. The other two lines show what this machine " +
			"gives to work that shares less.", (*bench).measureCores},
		{7, "Durable, one caller", "One durable call is one save: temp file, fsync, rename, fsync of the directory, plus the generation before kept as " +
			".bak and a lock against other processes. The bare cycle writes the same bytes with none of that. bbolt (free list not synced) and SQLite (WAL, synchronous=FULL, " +
			"prepared) add to three counters in one row.", (*bench).measureAlone},
		{8, "Durable, 64 callers", "Calls that arrive during a save share the next one. bbolt's Batch (MaxBatchSize 64) does so too; SQLite has one writer; " +
			"one save per call is the bare cycle under a lock.", (*bench).measureTogether},
		{9, "Durable, 1 to 4,096 callers", "How many calls share a save, counted from the state's generation before and after, and how many saves the slowest " +
			"hundredth of the calls has waited. The goal for calls per save counts where the CPU can wake all callers and make their calls in memory while a bare cycle is on the disk.",
			(*bench).measureCallers},
		{10, "Two processes", "Both save the same file and go on from what the other has saved. None of the peers can do this with one file but SQLite.",
			(*bench).measureProcesses},
		{11, "FlushInterval", "Calls return at once, the file is saved ten times a second; in memory nothing is saved.", (*bench).measureLazy},
		{12, "CanUse on a shared file", "An answer that would see another process's save at once, while there is none. In memory there is nothing to look at.",
			(*bench).measureLooking},
		{13, "An hour of real traffic", "The calls of one hour of a real service, in their order, as fast as they go: Reserve of the prompt and 512 tokens of answer, " +
			"Commit of what the answer was.", (*bench).measureTraffic},
		{14, "Large states", "The whole file is written by each save. Where a save takes longer than callers want to wait, another Persistence is the right choice.",
			(*bench).measureSizes},
		{15, "One quota on Redis", "Callers of one hot quota, in one process and in eight. A Reserve and its Commit are two decisions; both are saved " +
			"when they return. redis_rate's Allow takes one token of one key, by a script on the same server. The eight processes decide on " +
			"the same book, so each waits for the others, while redis_rate's scripts only follow each other.", (*bench).measureRedis},
		{16, "One quota on PostgreSQL", "The same of one process. The peer is what one writes without a library: an UPDATE that changes a row " +
			"only when the limit has room. Only one of those can change the row at a time, and each waits for its own sync of the log.",
			(*bench).measurePostgres},
	}
}
