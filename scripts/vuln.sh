#!/usr/bin/env bash
# vuln.sh GOVULNCHECK DATABASE: known vulnerabilities in what the module of the working directory calls.
#
# Where the database cannot be reached, it says so and looks at what can be known without it: that the modules are
# what go.sum says they are, and that their authors have not withdrawn them. That is less, and no vulnerability check.
set -euo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
"$1" -db "$2" -test ./... >"$log" 2>&1 || code=$?
unreachable='fetching vulnerabilities: .*(dial tcp|no such host|timeout|deadline exceeded|proxyconnect|unreachable|: Forbidden$)'
if [ "$code" -eq 0 ] || ! grep -qE "$unreachable" "$log"; then
	cat "$log"
	exit "$code"
fi

echo "WARNING: NO VULNERABILITY CHECK: the database $2 cannot be reached from here; checking for withdrawn modules only"
go mod verify
modules=$(go list -deps -test -f '{{with .Module}}{{if not (or .Main .Replace)}}{{.Path}}{{end}}{{end}}' ./... | sort -u)
if [ -z "$modules" ]; then
	exit 0
fi
if ! go list -m "${modules%%$'\n'*}@latest" >/dev/null 2>&1; then
	echo "WARNING: what their authors have withdrawn cannot be asked for either"
	exit 0
fi
# shellcheck disable=SC2086 # one argument for each module
known=$(go list -m -u -retracted -f \
	'{{.Path}} {{.Version}}{{with .Update}}, newer: {{.Version}}{{end}}{{with .Deprecated}}, DEPRECATED: {{.}}{{end}}{{with .Retracted}}, WITHDRAWN: {{.}}{{end}}' $modules)
echo "$known"
if grep -q ', WITHDRAWN: ' <<<"$known"; then
	exit 1
fi
