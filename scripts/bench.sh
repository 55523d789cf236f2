#!/bin/sh
# Runs the benchmarks, or those that are named: bench.sh PYTHON [name ...].
set -eu

PYTHON=$1
shift
[ $# -gt 0 ] || set -- $(ls benchmarks/bench_*.py 2>/dev/null | sed 's|benchmarks/\(.*\)\.py|\1|')
[ $# -gt 0 ] || { echo "make: there are no benchmarks/bench_*.py" >&2; exit 1; }
for name in "$@"; do
    echo "== $name"
    "$PYTHON" -m "benchmarks.$name"
done
