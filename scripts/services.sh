#!/usr/bin/env bash
# services.sh: installs the servers that tests start for themselves. It leaves no service of the system running: packages
# that want to start one as they are installed are told not to.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian keeps the programs of PostgreSQL out of the path.
export PATH=/usr/lib/postgresql/15/bin:$PATH

policy=/usr/sbin/policy-rc.d
if [ "$(id -u)" -eq 0 ] && [ -d /usr/sbin ] && [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod +x $policy
	trap 'rm -f $policy' EXIT
fi
scripts/packages.sh redis-server=redis-server postgres=postgresql-15
