"""Generate ``flmq/wire/proto`` from ``schemas/``: ``python scripts/generate_protos.py [folder]``.

The generated code is checked in; ``tests/wire/test_generated.py`` fails when it is out of date.
It comes from grpcio-tools 1.68, whose output runs on protobuf 5.28.1 (not 5.28.0) up to, but not
including, 7.
"""

from __future__ import annotations

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "schemas"
TARGET = ROOT / "flmq" / "wire" / "proto"

# protoc names modules after the schema's path alone; ours live inside the package.
_IMPORT = re.compile(r"^from flmq\.v1 import ", re.MULTILINE)
_OURS = "from flmq.wire.proto.flmq.v1 import "
_DOCSTRING = '"""Generated from schemas/ by scripts/generate_protos.py; do not edit."""\n'


def generate(target: Path) -> None:
    """Write the modules and their stubs below ``target``, removing what no schema stands for."""
    with tempfile.TemporaryDirectory() as scratch:
        _run_protoc(Path(scratch))
        fresh = {
            path.relative_to(scratch): _IMPORT.sub(_OURS, path.read_text(encoding="utf-8"))
            for path in sorted(Path(scratch).rglob("*_pb2.py*"))
        }
    for package in (Path(), Path("flmq"), Path("flmq/v1")):
        fresh[package / "__init__.py"] = _DOCSTRING
    for stale in target.rglob("*.py*"):
        if stale.suffix in {".py", ".pyi"} and stale.relative_to(target) not in fresh:
            stale.unlink()
    for relative, text in fresh.items():
        path = target / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _run_protoc(folder: Path) -> None:
    """Compile every schema into ``folder``."""
    schemas = sorted(str(path.relative_to(SCHEMAS)) for path in SCHEMAS.rglob("*.proto"))
    well_known = str(files("grpc_tools") / "_proto")
    arguments = [
        "protoc",
        f"--proto_path={SCHEMAS}",
        f"--proto_path={well_known}",
        f"--python_out={folder}",
        f"--pyi_out={folder}",
        *schemas,
    ]
    status = protoc.main(arguments)
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}; its messages are above")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
