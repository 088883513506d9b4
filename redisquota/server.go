package redisquota

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"example.com/quota"
)

// checkServer refuses a server that may delete what has been counted, and warns of one that may lose it.
func (s *Store) checkServer(ctx context.Context) error {
	info, err := s.info(ctx)
	if redis.HasErrorPrefix(err, "NOPERM") || redis.HasErrorPrefix(err, "ERR unknown command") {
		s.opts.Logger.Warn("redisquota: the server does not tell its settings, so they were not checked: make sure that its "+
			"maxmemory-policy is noeviction, and that it has an append-only file or replicas", "store", s.prefix, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("redisquota: asking the server of %s for its settings: %w", s.prefix, err)
	}
	if info["role"] == "slave" {
		return fmt.Errorf("redisquota: %w: the client of %s asks a replica, which may not know the newest books: give it the "+
			"master's address, or let it ask Sentinel", quota.ErrInvalidConfig, s.prefix)
	}
	policy, known := info["maxmemory_policy"]
	switch {
	case !known:
		s.opts.Logger.Warn("redisquota: the server does not tell its maxmemory-policy: make sure that it is noeviction",
			"store", s.prefix)
	case policy == "noeviction":
	case s.opts.AllowEviction:
		s.opts.Logger.Warn("redisquota: the server may delete what has been counted when its memory is full",
			"store", s.prefix, "maxmemory-policy", policy)
	default:
		return fmt.Errorf("redisquota: %w: maxmemory-policy is %s, with which the server may delete what has been counted when "+
			"its memory is full: set it to noeviction, or Options.AllowEviction to live with it", quota.ErrInvalidConfig, policy)
	}
	replicas, appendOnly := info["connected_slaves"], info["aof_enabled"]
	if appendOnly == "0" && replicas == "0" {
		s.opts.Logger.Warn("redisquota: the server has neither an append-only file nor replicas: a restart loses what was "+
			"counted since its last snapshot; set appendonly to yes", "store", s.prefix)
	}
	if s.opts.Replicas > 0 && replicas == "0" {
		s.opts.Logger.Warn("redisquota: Options.Replicas wants replicas and the server has none: every change will end in "+
			"ErrReplicas", "store", s.prefix, "replicas", s.opts.Replicas)
	}
	return nil
}

// info returns what the master says of itself. INFO tells more than CONFIG does where a provider forbids that.
func (s *Store) info(ctx context.Context) (map[string]string, error) {
	var master redis.Cmdable = s.client
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		node, err := cluster.MasterForKey(ctx, s.prefix)
		if err != nil {
			return nil, err
		}
		master = node
	}
	text, err := master.Info(ctx).Result()
	if err != nil {
		return nil, err
	}
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			info[key] = value
		}
	}
	return info, nil
}
