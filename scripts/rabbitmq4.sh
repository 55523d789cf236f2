#!/bin/sh
# Sees to a RabbitMQ 4 for private nodes, beside whatever this machine has: rabbitmq4.sh FOLDER.
#
# Debian trixie's packages are unpacked into FOLDER/root. Programs in FOLDER/sbin start them with that
# root's /usr in the place of the machine's own, in a mount namespace that ends with the process:
# nothing is mounted where others can see it, and paths mean the same inside and outside.
# FLMQ_RABBITMQ_SERVER=FOLDER/sbin/rabbitmq-server then has flmq use it, with FOLDER/sbin on PATH.
#
# Needs root, for the mounts, and Debian or Ubuntu. Exit status 3: not to be had here (says why).
set -eu

SUITE=trixie

cannot() {
    echo "make: RabbitMQ 4 cannot be had here: $1" >&2
    exit 3
}

[ "$(id -u)" = 0 ] || cannot "its files are unpacked and mounted by root (sudo make test-rabbitmq4)"
command -v apt-get >/dev/null 2>&1 || cannot "this system has no apt-get"
[ -L /lib ] || cannot "/lib of this system is not part of /usr"
mkdir -p "$1"
FOLDER=$(cd "$1" && pwd)
ROOT=$FOLDER/root
LOG=$FOLDER/install.log

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
        -o APT::Sandbox::User=root "$@" >>"$LOG" 2>&1 </dev/null
}

# The mirror that this machine's own packages come from, where it is Debian: it is known to answer.
mirror() {
    # shellcheck source=/dev/null
    [ "$(. /etc/os-release && echo "$ID")" = debian ] || return 0
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' |
        grep -v security | head -n 1
}

unpack() {
    echo "make: unpacking Debian $SUITE's rabbitmq-server into $1 (some minutes)"
    : >"$LOG"
    for package in debootstrap debian-archive-keyring; do
        dpkg -s "$package" >/dev/null 2>&1 || apt install "$package" ||
            { apt update && apt install "$package"; } || cannot "no $package: see $LOG"
    done
    rm -rf "$ROOT" "$ROOT.part"
    # Where there is no mirror of our own to name, debootstrap knows one.
    # shellcheck disable=SC2046
    debootstrap --variant=minbase --include=rabbitmq-server \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
        $SUITE "$ROOT.part" $(mirror) >>"$LOG" 2>&1 || {
        tail -n 5 "$LOG" >&2
        cannot "debootstrap failed; all it said is in $LOG"
    }
    rm -rf "$ROOT.part"/var/cache/apt/archives/*.deb
    mv "$ROOT.part" "$ROOT"
}

# A program that runs NAME of $ROOT. The namespace is this process's own: one pid from here to the server.
program() {
    cat >"$SBIN/$1" <<TEXT
#!/bin/sh
exec unshare --mount sh -c '
    mount --bind "$ROOT/usr" /usr
    mount --bind "$ROOT/etc/ld.so.cache" /etc/ld.so.cache
    exec "\$0" "\$@"' "$2" "\$@"
TEXT
    chmod 755 "$SBIN/$1"
}

[ -x "$ROOT/usr/lib/rabbitmq/bin/rabbitmq-server" ] || unpack "$FOLDER"
# Where flmq looks for the release's version.
ln -sfn "$(echo "$ROOT"/usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins)" "$FOLDER/plugins"
SBIN=$FOLDER/sbin
mkdir -p "$SBIN"
program rabbitmq-server /usr/lib/rabbitmq/bin/rabbitmq-server
program rabbitmqctl /usr/lib/rabbitmq/bin/rabbitmqctl
program erl /usr/bin/erl
program epmd /usr/bin/epmd
