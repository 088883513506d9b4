#!/usr/bin/env bash
# cover.sh PERCENT: fails if the root package's own tests run less than that part of its statements.
set -euo pipefail
cd "$(dirname "$0")/.."

go test -coverprofile=cover.out .
total=$(go tool cover -func=cover.out | awk '/^total:/ { sub("%", "", $NF); print $NF }')
echo "statement coverage of the root package: $total %, at least $1 % wanted"
if ! awk -v total="$total" -v wanted="$1" 'BEGIN { exit !(total >= wanted) }'; then
	echo "least covered:"
	go tool cover -func=cover.out | awk '$NF != "100.0%" && !/^total:/ { print $NF, $1, $2 }' | sort -n | head -20
	exit 1
fi
