package redisquota

import (
	"errors"
	"fmt"

	"example.com/quota"
)

var (
	// ErrLost says that the server does not have what it had saved: a failover to a replica that was behind, a restart
	// without its file, a database that somebody has emptied. It is reported once by each Store that notices, and logged;
	// the next call goes on from what there is. Usage that was saved in between is missing.
	ErrLost = errors.New("redisquota: the store has lost what it had saved")
	// ErrReplicas says that fewer replicas than Options.Replicas have received a change in time. The change stands on the
	// master. A tracker takes it for a reply that was lost: it does not apply it again.
	ErrReplicas = errors.New("redisquota: too few replicas have received the change")
)

// notSaved gives err the mark of an Update or a Save that failed, and names the store.
func (s *Store) notSaved(err error) error {
	if errors.Is(err, quota.ErrNotSaved) {
		return err
	}
	return fmt.Errorf("redisquota: %w: %s: %w", quota.ErrNotSaved, s.prefix, err)
}

// corrupt names the key in which something stands that cannot be read.
func (s *Store) corrupt(key string, err error) error {
	return fmt.Errorf("redisquota: %w: %s:%s: %w; restore the keys of %s from a backup, or delete all of them to count anew",
		quota.ErrCorruptState, s.prefix, key, err, s.prefix)
}
