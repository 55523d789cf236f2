#!/bin/sh
# Builds the wheel into dist/, and tries it where the source is not: check-wheel.sh VENV.
#
# The wheel goes into a virtual environment of its own that borrows VENV's libraries, all but flmq.
set -eu

VENV=$(cd "$1" && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/flmq-wheel.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

"$VENV/bin/python" -m pip wheel -qq --disable-pip-version-check --no-deps --wheel-dir "$scratch" .
"$VENV/bin/python" -m venv --without-pip "$scratch/venv"
"$VENV/bin/python" -m pip --python "$scratch/venv/bin/python" install -qq \
    --disable-pip-version-check --no-deps "$scratch"/flmq-*.whl
# Lines of a .pth file are not looked into for further .pth files: the editable flmq stays out.
"$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    >"$("$scratch/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"

cd "$scratch"
venv/bin/python -I - <<'TEXT'
import importlib.util
import pathlib
import pkgutil
import sys

import flmq

home = pathlib.Path(flmq.__file__).parent
assert home.is_relative_to(pathlib.Path(sys.prefix)), f"flmq came from {home}, not from the wheel"
assert (home / "py.typed").is_file(), "the wheel has no py.typed: type checkers would ignore it"
for part in ("static/main.js", "static/style.css", "templates/page.html"):
    assert (home / "ui" / part).is_file(), f"the wheel lacks the page's {part}"
names = [module.name for module in pkgutil.walk_packages(flmq.__path__, "flmq.")]
for name in names:
    if not name.endswith("__main__"):
        if name.startswith("flmq.torch") and importlib.util.find_spec("torch") is None:
            continue  # an extra
        importlib.import_module(name)
print(f"the wheel imports: {len(names)} modules of flmq {flmq.__version__}")
TEXT
venv/bin/flmq demo --in-memory --clients 3 --rounds 2 >demo.log 2>&1 ||
    { cat demo.log >&2; echo "make: the wheel's demo failed" >&2; exit 1; }
cd "$OLDPWD"
mkdir -p dist
cp "$scratch"/flmq-*.whl dist/
echo "built $(ls dist/flmq-*.whl | tail -n 1)"
