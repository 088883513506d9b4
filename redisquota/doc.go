// Package redisquota keeps the state of quota trackers in Redis or Valkey, so that orchestrators on several machines
// share the quotas of one provider account.
//
//	client := redis.NewClient(&redis.Options{Addr: "10.0.0.7:6379", ContextTimeoutEnabled: true})
//	store, err := redisquota.New(ctx, client, redisquota.Options{Namespace: "prod"})
//	...
//	tracker, err := quota.New(ctx, quota.Config{Persistence: store, Quotas: quotas})
//
// It is a [quota.SharedPersistence]: every rule about limits, windows, holds and alerts stays in the library's books. This
// package gives each batch of calls one transaction: the newest books of its quotas in, and those that have changed out,
// or nothing.
//
// # How a batch is saved
//
// A [Store] remembers the books that it has seen last, and their revisions. The tracker decides on copies of them, at the
// server's time as the last reply has told it; then one script compares the revisions and the time on the server and writes
// what has changed. While nobody else has written that is the only round trip, also for a refusal. Else the script returns
// the newer books, and the tracker decides anew.
//
// After five such conflicts in a row the stores that want the same quotas take turns: the script gives each a piece of time,
// 20 ms or what its way to the server needs, a second at most, in which the others do not write these quotas, and tells them
// when theirs begins. They wait for it with BLPOP, for a turn that is not used is given back, and then the next begins
// sooner. Nothing depends on turns but who comes first; a client that dies in its turn delays others until it ends.
//
// # Time
//
// The server's clock decides when windows turn and holds expire, for all clients. A decision says from when to when it
// holds (until the next turn, and for a second at most), and the script refuses it outside of that time. Keep the clocks of
// the servers that may become master synchronized.
//
// # What is promised
//
//   - Two batches that name a common quota never both succeed from the same books.
//   - When a call has returned nil, the server has saved it, as durably as it is set up to.
//   - A batch whose reply was lost is applied once or not at all. When an Update returns an error, it is decided which, and
//     the batch never takes effect later. That takes up to a second where the server was sent something to write and does
//     not answer; the next batch then first asks whether it is there.
//   - A state that is damaged or in part missing is quota.ErrCorruptState, one of a newer version quota.ErrNewerState; neither
//     is ever taken for an empty one or written over.
//   - Data that had been saved and is gone is reported, see below.
//   - Keys that do not begin with {quota:NAMESPACE}: are never touched.
//
// That nothing takes effect later rests on two things. Each run of a script carries a token and the revisions it expects,
// which never come again: a second copy of it, or one that comes after another change, does nothing. And it carries a time
// of the server from which on it is refused, and Update does not return an error before that time has come. This assumes
// that the server's clock is not set back in that second.
//
// # What a failover can lose
//
// Redis replicates asynchronously. When a master fails, the changes that no replica had received are lost, although they
// were acknowledged: usage and reservations are missing from the books, and up to as much may be admitted again. A master
// that is cut off from its replicas, but not from all clients, goes on granting until it learns that another has taken its
// place, and what it granted is then lost. This package cannot prevent that. It bounds and shows it:
//
//   - Options.Replicas waits until so many replicas have received each change, in the same round trip (WAIT). A failover
//     then loses an acknowledged change only if none of these replicas is the one that is promoted.
//   - min-replicas-to-write 1 and min-replicas-max-lag 10 make a master that is cut off refuse to write.
//   - appendonly yes and appendfsync always keep what was acknowledged through a restart of the same server; everysec may
//     lose the last second or two.
//   - Each Store notices when the data set is gone, is another, or has gone back, unless it has seen nothing of what was
//     lost, or more than 128 changes have been made since. It logs that once, the Update that noticed returns [ErrLost], and
//     the next goes on from what there is. Usage that the tracker keeps for later (quota.ErrPending) is still added.
//
// # Settings of the server
//
// Redis 6 or newer, or Valkey. maxmemory-policy noeviction: New refuses any other, because it may delete what has been
// counted (Options.AllowEviction). An append-only file or replicas: New warns when there is neither. Where a provider
// forbids INFO, New warns that it could not look, and goes on. A user restricted by ACL needs the keys {quota:NAMESPACE}:*
// and the commands +@hash +eval +evalsha +info +wait +time +get +set +del +exists +pexpire +rpush +blpop; without the last
// a turn only begins when it was planned to.
//
// A Store that waits for its turn listens for it on one connection, for a second at most: a client that several Stores share
// needs a PoolSize above their number, or they keep from each other the connection on which a turn ends.
//
// ContextTimeoutEnabled lets the client end a call that waits for an answer as soon as its time is over; without it the
// connection stays busy until ReadTimeout.
package redisquota
