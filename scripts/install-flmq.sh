#!/bin/sh
# Installs flmq, editable, with one of its extras: install-flmq.sh PYTHON VENV EXTRA.
#
# Makes the virtual environment VENV with PYTHON where there is none that works. On Debian and Ubuntu
# the module for that is a package of its own: it is installed, as root or through passwordless sudo.
set -eu

PYTHON=$1
VENV=$2
EXTRA=$3

stop() {
    echo "make: $1" >&2
    exit 1
}

check_python() {
    command -v "$PYTHON" >/dev/null 2>&1 ||
        stop "there is no '$PYTHON': install Python 3.11 or newer, or name one: make PYTHON=python3.12"
    found=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])') ||
        stop "'$PYTHON' does not run: name another: make PYTHON=python3.12"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        stop "'$PYTHON' is Python $found and flmq needs 3.11 or newer: name one: make PYTHON=python3.12"
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

# Debian and Ubuntu leave ensurepip out of their Python.
see_to_venv_module() {
    "$PYTHON" -c 'import ensurepip, venv' >/dev/null 2>&1 && return
    package=python$found-venv
    lacking="'$PYTHON' cannot make virtual environments: install $package"
    command -v apt-get >/dev/null 2>&1 || stop "$lacking (or what your system calls it)"
    if [ "$(id -u)" != 0 ]; then
        { command -v sudo && sudo -n true; } >/dev/null 2>&1 ||
            stop "$lacking: sudo apt-get install $package"
    fi
    echo "make: installing $package"
    LOG=$(mktemp "${TMPDIR:-/tmp}/flmq-install.XXXXXX")
    apt install --no-install-recommends "$package" ||
        { apt update && apt install --no-install-recommends "$package"; } ||
        { tail -n 20 "$LOG" >&2; stop "$lacking; apt-get's whole output is in $LOG"; }
    rm -f "$LOG"
}

make_venv() {
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && return
    check_python
    see_to_venv_module
    echo "make: making $VENV with Python $found"
    "$PYTHON" -m venv --clear "$VENV"
}

make_venv
echo "make: installing flmq[$EXTRA] into $VENV: pip fetches what it needs, once, in a minute or two"
"$VENV/bin/python" -m pip install -qq --disable-pip-version-check --no-input -e ".[$EXTRA]" </dev/null ||
    stop "pip could not install flmq[$EXTRA]; its messages are above"
# "dev" contains "demo".
[ "$EXTRA" != dev ] || touch "$VENV/.installed-demo"
touch "$VENV/.installed-$EXTRA"
