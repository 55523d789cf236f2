#!/bin/sh
# Sees to it that flmq will find a RabbitMQ: see-to-broker.sh VENV [the demo's options ...].
#
# A broker that is named comes first, then the local rabbitmq-server, installed where that is
# possible, then a Docker-compatible daemon, for which flmq's extra is installed. Exit status 3:
# there is none, and what can be done about it has been said.
set -eu

VENV=$1
shift
for option in "$@"; do
    case $option in --in-memory | --broker | --broker=* | --help) exit 0 ;; esac
done
[ -z "${FLMQ_BROKER_URL:-}${FLMQ_RABBITMQ_SERVER:-}" ] || exit 0

said=$(mktemp "${TMPDIR:-/tmp}/flmq-broker.XXXXXX")
trap 'rm -f "$said"' EXIT
sh scripts/install-rabbitmq.sh 2>"$said" && exit 0
if command -v docker >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
    exec "$VENV/bin/python" -m pip install -qq --disable-pip-version-check -e '.[docker]'
fi
cat "$said" >&2
echo "Meanwhile, the demo without a broker: make demo-in-memory" >&2
exit 3
