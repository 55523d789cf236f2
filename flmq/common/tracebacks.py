"""Tracebacks for users: from their own code on, without the frames of flmq that lead there."""

from __future__ import annotations

import importlib
import traceback
from importlib.util import find_spec
from pathlib import Path

__all__ = ["user_traceback"]

_OURS = str(Path(__file__).parents[1])


def user_traceback(error: BaseException) -> str:
    """Return the traceback of ``error`` from the first frame outside flmq and its libraries on.

    If there is no such frame, the fault is flmq's, and the whole traceback is returned.
    """
    described = traceback.TracebackException.from_exception(error)
    _trim(described, _prefixes(), set())
    return "".join(described.format())


def _prefixes() -> tuple[str, ...]:
    """Return the folders of code that leads to the user's: flmq, its libraries, and importlib."""
    folders = [_OURS, str(Path(importlib.__file__).parent)]
    for name in ("typer", "click"):
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            folders.append(str(Path(spec.origin).parent))
    return (*(f"{folder}/" for folder in folders), "<frozen ")


def _trim(described: traceback.TracebackException, ours: tuple[str, ...], seen: set[int]) -> None:
    """Drop the frames that lead to the user's code, also from the error's causes and contexts."""
    if id(described) in seen:
        return
    seen.add(id(described))
    frames = [frame for frame in described.stack if not frame.filename.startswith("<frozen ")]
    users = [at for at, frame in enumerate(frames) if not frame.filename.startswith(ours)]
    # The outermost frame is the script `flmq`, which is not the user's code either.
    users = [at for at in users if not _is_entry(frames[at])]
    if users:
        described.stack = traceback.StackSummary.from_list(frames[users[0] :])
    elif described.exc_type is not None and issubclass(described.exc_type, SyntaxError):
        # A SyntaxError names the user's line itself.
        described.stack = traceback.StackSummary()
    for cause in (described.__cause__, described.__context__):
        if cause is not None:
            _trim(cause, ours, seen)


def _is_entry(frame: traceback.FrameSummary) -> bool:
    return frame.name == "<module>" and Path(frame.filename).name in ("flmq", "flmq.exe")
