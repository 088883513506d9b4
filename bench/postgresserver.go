package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// startPostgres starts a PostgreSQL server on the loopback with the settings that initdb gives it, fsync and all, and
// returns how to connect to it.
func (b *bench) startPostgres() (s *server, dsn string, err error) {
	programs, err := findPostgres()
	if err != nil {
		return nil, "", err
	}
	dir, cleanUp, err := b.serverDirectory()
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if err != nil {
			cleanUp()
		}
	}()
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(b.ctx, filepath.Join(programs, "initdb"), "--pgdata", data, "--username", "postgres",
		"--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync") // the server syncs what it writes, all the same
	initdb.SysProcAttr, initdb.Dir = notAsRoot(), dir
	if output, err := initdb.CombinedOutput(); err != nil {
		return nil, "", fmt.Errorf("initdb: %w: %s", err, output)
	}
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	command := exec.Command(filepath.Join(programs, "postgres"), "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=")
	command.SysProcAttr, command.Dir = notAsRoot(), dir
	dsn = fmt.Sprintf("host=127.0.0.1 port=%s user=postgres dbname=postgres sslmode=disable", port)
	s, err = startServer(b.ctx, dir, syscall.SIGINT, command, func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
	if err != nil {
		return nil, "", err
	}
	s.cleanUp = cleanUp
	return s, dsn, nil
}

// findPostgres returns the directory of the server's programs. Debian keeps them out of the path.
func findPostgres() (string, error) {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.Reverse(installed) // the newest first
	for _, dir := range append(dirs, installed...) {
		_, err1 := os.Stat(filepath.Join(dir, "postgres"))
		_, err2 := os.Stat(filepath.Join(dir, "initdb"))
		if errors.Join(err1, err2) == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("PostgreSQL %w", errMissing)
}

// pool connects so many at most over the wire.
func pool(ctx context.Context, dsn string, w *wire, most int32) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	cfg.ConnConfig.DialFunc = w.dial
	cfg.MaxConns, cfg.MinConns = most, most
	return pgxpool.NewWithConfig(ctx, cfg)
}
