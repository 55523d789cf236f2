"""The generated code that is checked in is what the schemas give, and stays among itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from flmq.wire.proto.flmq.v1 import envelopes_pb2

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "flmq" / "wire" / "proto"


def _sources(folder: Path) -> dict[str, str]:
    """Every generated file below ``folder``, by its path."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*.py*"))
        if path.suffix in {".py", ".pyi"}
    }


def test_is_up_to_date(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "generate_protos.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    fresh, kept = _sources(tmp_path), _sources(GENERATED)
    changed = sorted(name for name in fresh | kept if fresh.get(name) != kept.get(name))
    assert not changed, f"run `python scripts/generate_protos.py`: it changes {changed}"


def test_every_schema_is_there() -> None:
    schemas = {path.stem for path in (ROOT / "schemas").rglob("*.proto")}
    modules = {path.stem.removesuffix("_pb2") for path in GENERATED.rglob("*_pb2.py")}
    assert schemas == modules
    assert len(schemas) == 10


def test_file_names_in_the_descriptor_pool_are_our_own() -> None:
    # The pool is one for the whole process: two packages must not register the same name.
    descriptor = envelopes_pb2.DESCRIPTOR
    names = [descriptor.name, *(dependency.name for dependency in descriptor.dependencies)]
    assert all(name.startswith("flmq/v1/") for name in names)
    assert descriptor.package == "flmq.v1"


def test_is_imported_in_the_wire_alone() -> None:
    importers = {
        path.relative_to(ROOT / "flmq").parts[0]
        for path in (ROOT / "flmq").rglob("*.py")
        if any("flmq.wire.proto" in name for name in _imports(path))
    }
    assert importers == {"wire"}


def test_every_enum_starts_at_unspecified() -> None:
    files = [envelopes_pb2.DESCRIPTOR, *envelopes_pb2.DESCRIPTOR.dependencies]
    enums = [enum for file in files for enum in file.enum_types_by_name.values()]
    assert enums
    for enum in enums:
        assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")


def _imports(path: Path) -> list[str]:
    """Names of the modules that a source file imports."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names
