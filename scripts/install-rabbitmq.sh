#!/bin/sh
# Sees to a rabbitmq-server binary on this machine, for private nodes that flmq starts by itself.
#
# Does nothing where the binary is there already. Otherwise installs Debian's (or Ubuntu's) package,
# as root or through passwordless sudo, without letting the packaged service run: flmq wants the
# program, not a broker on 5672. A service that was there before is never touched.
#
# Exit status: 0 the binary is there; 3 it is not and cannot be installed from here (says what to do).
set -eu

POLICY=/usr/sbin/policy-rc.d
SAVED=/usr/sbin/policy-rc.d.before-flmq
MARK='flmq: rabbitmq-server and epmd stay down while they are installed'

have_rabbitmq() {
    command -v rabbitmq-server >/dev/null 2>&1 ||
        [ -x /usr/sbin/rabbitmq-server ] || [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]
}

cannot() {
    cat >&2 <<TEXT
flmq: no rabbitmq-server here, and it cannot be installed from here: $1.
Any one of these will do:
  Debian, Ubuntu    sudo apt-get install rabbitmq-server
  Fedora            sudo dnf install rabbitmq-server
  macOS             brew install rabbitmq, brew services start rabbitmq, then give its URL:
  a broker you have export FLMQ_BROKER_URL=amqp://user:password@host:5672/vhost
  Docker            pip install 'flmq[docker]', with a daemon that answers
  no broker at all  flmq demo --in-memory
TEXT
    exit 3
}

# Puts back what stood at policy-rc.d; also after an earlier run that was killed in the middle.
restore_policy() {
    if [ -f "$POLICY" ] && grep -qF "$MARK" "$POLICY"; then
        rm -f "$POLICY"
    fi
    if [ -e "$SAVED" ] || [ -L "$SAVED" ]; then
        mv -f "$SAVED" "$POLICY"
    fi
}

# Denies the two services alone; every other question goes to the policy that was there.
guard_policy() {
    if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then
        mv -f "$POLICY" "$SAVED"
    fi
    cat >"$POLICY" <<TEXT
#!/bin/sh
# $MARK
for word in "\$@"; do
    case "\$word" in rabbitmq-server* | epmd*) exit 101 ;; esac
done
[ ! -x $SAVED ] || exec $SAVED "\$@"
exit 0
TEXT
    chmod 755 "$POLICY"
}

epmds() {
    for stat in /proc/[0-9]*/comm; do
        if [ "$(cat "$stat" 2>/dev/null || :)" = epmd ]; then
            stat=${stat#/proc/}
            echo "${stat%/comm}"
        fi
    done
}

# Ends an epmd that the installation brought up; one with a port of its own belongs to a private node.
end_new_epmds() {
    for pid in $(epmds); do
        case " $1 " in *" $pid "*) continue ;; esac
        if ! tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -q '^ERL_EPMD_PORT='; then
            kill "$pid" 2>/dev/null || :
        fi
    done
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
        -o APT::Sandbox::User=root "$@" >>"$LOG" 2>&1 </dev/null
}

install_package() {
    if LC_ALL=C apt-cache policy rabbitmq-server 2>/dev/null | grep -q 'Candidate: [0-9]'; then
        apt install --no-install-recommends rabbitmq-server && return 0
    fi
    # The package lists are missing or out of date.
    apt update && apt install --no-install-recommends rabbitmq-server
}

# Only what this installation brought: an Erlang from before keeps its epmd service as it was.
keep_services_off() {
    if command -v systemctl >/dev/null 2>&1; then
        systemctl disable rabbitmq-server.service >/dev/null 2>&1 || :
        [ "$1" = yes ] || systemctl disable epmd.service >/dev/null 2>&1 || :
    fi
    if command -v update-rc.d >/dev/null 2>&1; then
        update-rc.d rabbitmq-server disable >/dev/null 2>&1 || :
    fi
}

if [ "$(id -u)" != 0 ]; then
    have_rabbitmq && exit 0
    command -v apt-get >/dev/null 2>&1 || cannot "this system has no apt-get"
    if command -v sudo >/dev/null 2>&1 && sudo -n true >/dev/null 2>&1; then
        exec sudo -n sh "$0" "$@"
    fi
    cannot "neither root nor passwordless sudo"
fi

if ! command -v apt-get >/dev/null 2>&1; then
    have_rabbitmq && exit 0
    cannot "this system has no apt-get"
fi
if command -v flock >/dev/null 2>&1; then
    exec 9>/run/flmq-install-rabbitmq.lock
    flock 9
fi
restore_policy
have_rabbitmq && exit 0

echo "flmq: installing rabbitmq-server (the packaged service stays off)"
LOG=$(mktemp "${TMPDIR:-/tmp}/flmq-install-rabbitmq.XXXXXX")
had_epmd=no
! command -v epmd >/dev/null 2>&1 || had_epmd=yes
before=$(epmds | tr '\n' ' ')
trap 'restore_policy; exit 130' INT TERM HUP
trap restore_policy EXIT
guard_policy
if install_package && have_rabbitmq; then
    keep_services_off "$had_epmd"
    end_new_epmds "$before"
    rm -f "$LOG"
    echo "flmq: rabbitmq-server is installed"
else
    tail -n 20 "$LOG" >&2
    end_new_epmds "$before"
    cannot "apt-get failed; its whole output is in $LOG"
fi
