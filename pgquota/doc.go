// Package pgquota keeps the state of quota trackers in PostgreSQL, so that many processes on many machines keep to one set
// of quotas, with the durability and the SQL of a database that is there already.
//
//	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
//	store, err := pgquota.New(ctx, pool, pgquota.Options{})
//	tracker, err := quota.New(ctx, quota.Config{Persistence: store, Quotas: quotas})
//
// The rules stay in the library's books, which are the same everywhere. The store gives them a transaction: the newest
// books of the quotas that a call names in, those it has changed out, or nothing. Calls of one tracker that come while a
// transaction runs share the next one.
//
// # A transaction
//
// An Update is two round trips. The first begins, takes transaction-level advisory locks that stand for the quotas named,
// in an order that all share, and then reads their books and clock_timestamp(). The second writes what has changed and
// commits. So quotas that do not exist yet exclude each other too, those who want the same quota queue in the order in
// which they come, and nobody is overtaken for ever. Locks of quotas with nothing in common collide now and then, as there
// are 1024 of them: that costs a wait and nothing else.
//
// The statement that writes also compares the revision of every book that was read, so that whoever writes past the locks,
// with SQL by hand, is not overwritten: the call is then decided anew, and after five such conflicts it takes the table
// for itself. Serialization failures (40001) and deadlocks (40P01), which only others can cause, are treated alike.
//
// The statement fails, too, when the time until which the decision holds has come, by clock_timestamp() after everything
// has been written. What is left is the time of the COMMIT itself. A window may turn in it, but nobody decides anything
// about the same quotas until it is over: in the order of decisions, which is that of their times, this one came before the
// turn. Its caller learns of it a moment after, as one does whose reply took long.
//
// # What an error leaves
//
// When the server has refused, nothing stands. When the connection was lost before the second round trip, nothing stands,
// and the call is tried again on another connection. When it was lost during the second, the change stands or does not
// stand. The server decides that without the client: either it has received the COMMIT or the transaction ends with its
// connection, at the latest when it has been idle for 5 seconds (idle_in_transaction_session_timeout). Until then the
// transaction holds its locks. The next Update of the same quotas waits for them, so that it sees what became of the
// change; so do, in the store that has lost the reply, the next Load, Save and Update of all books. A tracker recognises in
// the books what it had applied, and counts nothing twice.
//
// # Durability
//
// A call is acknowledged when COMMIT has returned, with synchronous_commit on: where the server or the role has it off, it
// is set on for the transaction; local, remote_write and remote_apply stay as they are. No statement_timeout ends the
// COMMIT, because the server would then report success without the standbys that it waits for. New warns of fsync off and
// full_page_writes off, and refuses unlogged tables and standbys.
//
// What a failover can lose depends on the standby that takes over. With asynchronous replication: the last acknowledged
// calls, that is usage, and with it the promise not to over-admit, for as much as was lost. With synchronous_standby_names
// set and synchronous_commit on or higher, and a failover only to a standby that was in step: nothing. A server that has
// been replaced and still takes writes of some clients (split brain) breaks every promise; fence it.
//
// # Time
//
// The store's clock is the server's. Books remember the time of their last change, and never see an earlier one, unless it
// lies more than a day ahead: then the clock had been wrong, and they go back to what it says now, usage kept.
//
// # Poolers
//
// Nothing is left in a session, and nothing expected of it: no prepared statements (parameters have their types with them, as
// with pgx.QueryExecModeExec, whatever mode the pool has), no session settings or locks, no LISTEN. PgBouncer with
// pool_mode=transaction will do, one with pool_mode=statement will not.
package pgquota
