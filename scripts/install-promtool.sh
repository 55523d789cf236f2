#!/bin/sh
# Sees to promtool, which checks deploy/monitoring's rules and runs their tests; prints its path.
#
# Uses the one on PATH, or the one in the folder given. Otherwise takes it out of Debian's (or
# Ubuntu's) package prometheus, which is not installed: no service, nothing outside of the folder.
#
# Exit status: 0 promtool is there; 3 it is not and cannot be had from here (says why).
set -eu

folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/flmq/promtool}

if command -v promtool; then
    exit 0
fi
found=$folder/usr/bin/promtool
if [ ! -x "$found" ]; then
    cannot() {
        echo "flmq: no promtool here, and it cannot be had from here: $1" >&2
        exit 3
    }
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || cannot "no apt"
    mkdir -p "$folder"
    (cd "$folder" && apt-get -q download prometheus >&2) || cannot "apt-get download prometheus failed"
    dpkg -x "$folder"/prometheus_*.deb "$folder" || cannot "its package cannot be read"
    rm -f "$folder"/prometheus_*.deb
    [ -x "$found" ] || cannot "its package has no promtool"
fi
echo "$found"
