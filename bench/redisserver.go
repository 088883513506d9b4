package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// startRedis starts a redis-server on the loopback that keeps an append-only file on the disk that is measured, and
// returns its address.
func (b *bench) startRedis(appendfsync string) (s *server, address string, err error) {
	program := ""
	for _, name := range []string{"valkey-server", "redis-server"} {
		if path, missing := exec.LookPath(name); missing == nil {
			program = path
		}
	}
	if program == "" {
		return nil, "", fmt.Errorf("redis-server %w", errMissing)
	}
	dir, err := b.scratch()
	if err != nil {
		return nil, "", err
	}
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	command := exec.Command(program, "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--daemonize", "no", "--save", "",
		"--appendonly", "yes", "--appendfsync", appendfsync, "--loglevel", "warning")
	command.SysProcAttr = endWithParent()
	address = net.JoinHostPort("127.0.0.1", port)
	client := redis.NewClient(&redis.Options{Addr: address, MaxRetries: -1})
	defer func() { _ = client.Close() }() // it has only pinged
	s, err = startServer(b.ctx, dir, syscall.SIGTERM, command, func(ctx context.Context) error { return client.Ping(ctx).Err() })
	return s, address, err
}

// redisClient has a connection over the wire for each of so many callers.
func redisClient(address string, w *wire, callers int) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: address, Dialer: w.dial, PoolSize: callers, MinIdleConns: callers})
}

// redisVersion is what the server says that it is.
func (b *bench) redisVersion(address string) string {
	client := redis.NewClient(&redis.Options{Addr: address})
	defer func() { _ = client.Close() }() // it has only asked
	server := client.InfoMap(b.ctx, "server").Val()["Server"]
	if version := server["valkey_version"]; version != "" {
		return "Valkey " + version
	}
	return "Redis " + server["redis_version"]
}
