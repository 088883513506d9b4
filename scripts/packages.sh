#!/usr/bin/env bash
# packages.sh COMMAND=PACKAGE...: installs the Debian packages of the commands that are missing, if it may.
set -euo pipefail

missing=()
for pair in "$@"; do
	PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
done
if [ "${#missing[@]}" -eq 0 ]; then
	exit
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing: ${missing[*]} (install them; as root on Debian this is done for you)" >&2
	exit
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
