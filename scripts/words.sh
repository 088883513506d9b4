#!/usr/bin/env bash
# words.sh: the project speaks of itself alone. Looks for what slips in from elsewhere: merge conflicts, paths of
# somebody's machine, mirrors of a private network, notes to oneself, and pages that are not here.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
files=$(git ls-files --cached --others --exclude-standard | grep -vxF 'scripts/words.sh' | sort -u)
forbid() { # WHY PATTERN
	local found
	found=$(tr '\n' '\0' <<<"$files" | xargs -0 grep -nIsE -- "$2" || true)
	if [ -n "$found" ]; then
		echo "$1:"
		echo "$found"
		failed=1
	fi
}

forbid 'a merge conflict' '^(<<<<<<<|>>>>>>>)( |$)'
forbid 'a path of one machine' '(^|[^A-Za-z0-9._~-])/(work|root|Users|home/[a-z]+)/'
forbid 'the host of a package registry' 'https?://(proxy|registry|sum|deb|mirror|mirrors)\.'
forbid 'a note that nobody else can follow' '(^|[^A-Za-z])(TODO|FIXME|XXX|HACK)([^A-Za-z]|$)'
forbid 'the number of an issue, a task or a ticket' '(^|[^A-Za-z])([Ii]ssue|[Tt]ask|[Tt]icket) #[0-9]'
forbid 'where somebody works' '(^|[^A-Za-z])([Ww]orkplace|[Cc]oworker|[Cc]olleague)s?([^A-Za-z]|$)'

pages=$(tr '\n' '\0' <<<"$files" | xargs -0 grep -hoIsE '(^|[^A-Za-z0-9_])[A-Z][A-Z0-9_]+\.md' | grep -oE '[A-Z][A-Z0-9_]+\.md' | sort -u || true)
for page in $pages; do
	if ! grep -qE "(^|/)$page\$" <<<"$files"; then
		forbid "a page that is not here ($page)" "(^|[^A-Za-z0-9_])$page"
	fi
done
exit "$failed"
