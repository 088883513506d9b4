#!/usr/bin/env bash
# each.sh COMMAND...: runs a command in the directory of every module that go.work uses.
set -euo pipefail
cd "$(dirname "$0")/.."

modules=$(GOWORK='' GOFLAGS='' go list -m -f '{{.Path}} {{.Dir}}')
while read -r path dir; do
	echo "-- $path: $(basename "$1") ${*:2}"
	(cd "$dir" && "$@" </dev/null)
done <<<"$modules"
