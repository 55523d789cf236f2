"""Release a parent's connections in a forked child.

A child forked by user code (a data loader's worker, for example) has copies of the parent's
sockets. If the parent were killed, the broker would consider it alive as long as its children live,
and let nobody take its place. Other processes (subprocesses, spawned ones) inherit no sockets.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any

__all__ = ["descriptors", "forget", "let_go_in_children"]

_loops: weakref.WeakSet[Any] = weakref.WeakSet()


def let_go_in_children(loop: Any) -> None:
    """Make forked children release the sockets of pika's ``loop``, connecting ones included."""
    _loops.add(loop)


def forget(loop: Any) -> None:
    """Forget a closed loop: its descriptors may by now be other files."""
    _loops.discard(loop)


def descriptors(loop: Any) -> list[int]:
    """Return the file descriptors that a pika loop watches; pika has no public way to get them."""
    return list(getattr(getattr(loop, "_poller", None), "_fd_handlers", ()))


def _let_go() -> None:
    """Replace the sockets by the null device.

    If they were closed, their numbers would be reused for other files, which Python would then
    close with its sockets.
    """
    watched = [number for loop in list(_loops) for number in descriptors(loop)]
    if not watched:
        return
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        for number in watched:
            with contextlib.suppress(OSError, ValueError):  # already closed
                os.dup2(null, number, inheritable=False)
        os.close(null)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_let_go)
