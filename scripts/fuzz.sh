#!/usr/bin/env bash
# fuzz.sh TIME: runs each fuzz target of the root package for that long. What it finds stays in testdata/fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=$(go test -list '^Fuzz' . | grep '^Fuzz' || true)
if [ -z "$targets" ]; then
	echo "fuzz: the root package has no fuzz targets"
	exit 1
fi
fuzz() { go test -run '^$' -fuzz "^$1\$" -fuzztime "$2" . 2>&1 | tee "$log"; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in $targets; do
	echo "fuzz: $target for $1"
	if ! fuzz "$target" "$1"; then
		# Go's fuzzer at times reports its own deadline as a failure (golang/go#75804): only that is tried again.
		if ! grep -q 'context deadline exceeded' "$log" || grep -q 'Failing input written' "$log"; then
			exit 1
		fi
		echo "fuzz: $target ran into its own deadline, once more"
		fuzz "$target" "$1"
	fi
done
