// Package storetest tests what quotatest.TestPersistence cannot see from within one process: how a
// quota.SharedPersistence serves a fleet of processes that are killed, cut off and restarted, and whether a tracker on it
// gives the same answers as one in memory.
//
// A store is plugged in like this; Place says where it is, for other processes too:
//
//	var subject = storetest.Subject{
//		Timed: true, Network: true,
//		Open: func(ctx context.Context, place storetest.Place) (quota.Persistence, func(), error) {
//			client := redis.NewClient(&redis.Options{Network: place.Network(), Addr: place.Address})
//			store, err := redisquota.New(offset.With(ctx, place.Ahead), client, redisquota.Options{Namespace: place.Name})
//			return store, func() { _ = client.Close() }, err
//		},
//		Start: func(tb testing.TB) storetest.Server {
//			server := redistest.Start(tb)
//			return storetest.Server{Address: server.Addr(), Restart: server.KillAndRestart}
//		},
//	}
//
//	func TestMain(m *testing.M) {
//		storetest.Process(subject) // the program is run once more for each process of a fleet
//		os.Exit(m.Run())
//	}
//
//	func TestFleet(t *testing.T)     { storetest.TestFleet(t, subject) }
//	func TestSequences(t *testing.T) { storetest.TestSequences(t, subject) }
//
// How much is tried is small, and the same each time, unless the environment says QUOTA_STORETEST=full: then it takes long,
// and random numbers are new. QUOTA_STORETEST_SEED names those of another time.
package storetest
