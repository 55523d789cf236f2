"""What make says where it cannot go on: the scripts behind it, with a Python that does not do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("cat", "dirname", "env", "id", "mktemp", "rm", "sh", "sleep", "tail", "touch")


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder for PATH with a few tools in it, and neither Python nor a package manager."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        real = next(path for place in ("/usr/bin", "/bin") if (path := Path(place, tool)).exists())
        (folder / tool).symlink_to(real)
    return folder


def install(path: Path, python: str, venv: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "scripts/install-flmq.sh", python, str(venv), "demo"],
        cwd=ROOT,
        env={"PATH": str(path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def fake_python(folder: Path, version: tuple[int, int], *, has_venv: bool) -> str:
    """A python3 of another version, as far as the script asks."""
    new_enough = version >= (3, 11)
    program = folder / "python3"
    program.write_text(
        "#!/bin/sh\n"
        'case "$2" in\n'
        f"*print*) echo {version[0]}.{version[1]} ;;\n"
        f"*version_info*) exit {0 if new_enough else 1} ;;\n"
        f"*ensurepip*) exit {0 if has_venv else 1} ;;\n"
        "*) exit 9 ;;\n"
        "esac\n"
    )
    program.chmod(0o755)
    return "python3"


def test_no_python(bare_path: Path, tmp_path: Path) -> None:
    done = install(bare_path, "python3", tmp_path / "venv")
    assert done.returncode == 1
    assert "there is no 'python3': install Python 3.11 or newer" in done.stderr


def test_a_python_that_is_too_old(bare_path: Path, tmp_path: Path) -> None:
    python = fake_python(bare_path, (3, 9), has_venv=True)
    done = install(bare_path, python, tmp_path / "venv")
    assert done.returncode == 1
    assert "is Python 3.9 and flmq needs 3.11 or newer" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_without_venv_where_nothing_can_be_installed(
    bare_path: Path, tmp_path: Path
) -> None:
    python = fake_python(bare_path, (3, 12), has_venv=False)
    done = install(bare_path, python, tmp_path / "venv")
    assert done.returncode == 1
    assert "install python3.12-venv" in done.stderr


@pytest.mark.parametrize("named", ["FLMQ_BROKER_URL", "FLMQ_RABBITMQ_SERVER"])
def test_a_broker_that_is_named_needs_nothing(bare_path: Path, named: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "scripts/see-to-broker.sh", ".venv"],
        cwd=ROOT,
        env={"PATH": str(bare_path), named: "somewhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
