#!/usr/bin/env bash
# fleet.sh: runs the fleet example on the server at REDIS_ADDR, or on one of its own that ends with it.
set -euo pipefail
cd "$(dirname "$0")/../redisquota"

if [ -n "${REDIS_ADDR:-}" ]; then
	exec go run ./examples/fleet "$@"
fi
if ! command -v redis-server >/dev/null; then
	echo "there is no redis-server: install one (make services), or name a server in REDIS_ADDR" >&2
	exit 1
fi
dir=$(mktemp -d)
redis-server --port 0 --unixsocket "$dir/socket" --dir "$dir" --save '' --appendonly yes --loglevel warning \
	--logfile "$dir/log" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; rm -rf "$dir"' EXIT
for _ in $(seq 100); do
	[ -S "$dir/socket" ] && break
	sleep 0.1
done
REDIS_ADDR=unix://$dir/socket go run ./examples/fleet "$@"
