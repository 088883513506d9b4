#!/usr/bin/env bash
# deps.sh: what the packages of the root module are built from, tests aside, on every kind of system; and with which Go.
set -euo pipefail
cd "$(dirname "$0")/.."

oldest=1.25
if ! grep -qE "^go ${oldest/./\\.}(\.|\$)" go.mod; then
	echo "go.mod must keep to Go $oldest; a newer requirement has raised it to: $(grep '^go ' go.mod)"
	exit 1
fi

allowed="$(go list -m)
github.com/gofrs/flock
github.com/google/renameio/v2
golang.org/x/sys"

for os in windows darwin linux; do
	used=$(GOOS=$os CGO_ENABLED=0 go list -deps -f '{{with .Module}}{{.Path}}{{end}}' ./... | sort -u)
	others=$(grep -vxF "$allowed" <<<"$used" || true)
	if [ -n "$others" ]; then
		echo "the library may not be built from these modules ($os); they belong in a nested module:"
		echo "$others"
		exit 1
	fi
done
echo "built from: $(paste -sd ' ' - <<<"$used"), and the standard library"
