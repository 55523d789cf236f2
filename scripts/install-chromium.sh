#!/bin/sh
# Sees to a Chromium on this machine, in which the tests look at flmq's pages.
#
# Does nothing where there is one. Otherwise installs Debian's package, as root or through
# passwordless sudo; Ubuntu's is a snap, which cannot be installed everywhere: there, name a
# Chromium or Chrome of your own by FLMQ_CHROMIUM.
#
# Exit status: 0 it is there; 3 it is not and cannot be installed from here (says what to do).
set -eu

have_chromium() {
    [ -x "${FLMQ_CHROMIUM:-}" ] || command -v chromium || command -v chromium-browser ||
        command -v google-chrome
}

cannot() {
    echo "flmq: no Chromium here, and it cannot be installed from here: $1." >&2
    echo "Install one, or name it: export FLMQ_CHROMIUM=/path/to/chromium" >&2
    exit 3
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 \
        -o DPkg::Lock::Timeout=300 "$@" >>"$LOG" 2>&1 </dev/null
}

have_chromium >/dev/null && exit 0
command -v apt-get >/dev/null || cannot "no apt"
if [ "$(id -u)" != 0 ]; then
    { command -v sudo && sudo -n true; } >/dev/null 2>&1 || cannot "neither root nor passwordless sudo"
fi
LOG=$(mktemp "${TMPDIR:-/tmp}/flmq-install.XXXXXX")
echo "flmq: installing chromium"
apt install --no-install-recommends chromium ||
    { apt update && apt install --no-install-recommends chromium; } ||
    cannot "apt-get failed, see $LOG"
have_chromium >/dev/null || cannot "the package chromium has no program"
rm -f "$LOG"
