"""What a forked child does with its parent's connections: it lets go of them.

A child that user code forks (a data loader's worker, say) has copies of the parent's sockets. Were
the parent killed, the broker would think it alive for as long as its children live, and let nobody
take its place. Other processes (subprocesses, spawned ones) inherit no sockets.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any

__all__ = ["descriptors", "forget", "let_go_in_children"]

_loops: weakref.WeakSet[Any] = weakref.WeakSet()


def let_go_in_children(loop: Any) -> None:
    """Have forked children close what pika's ``loop`` watches, connecting sockets included."""
    _loops.add(loop)


def forget(loop: Any) -> None:
    """Leave a loop alone that is closed: its numbers may be other files' by now."""
    _loops.discard(loop)


def descriptors(loop: Any) -> list[int]:
    """The file descriptors that a loop of pika's watches: pika names them nowhere."""
    return list(getattr(getattr(loop, "_poller", None), "_fd_handlers", ()))


def _let_go() -> None:
    """Put the null device in the sockets' place.

    Closed, their numbers would go to other files, which Python would close with its sockets.
    """
    watched = [number for loop in list(_loops) for number in descriptors(loop)]
    if not watched:
        return
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        for number in watched:
            with contextlib.suppress(OSError, ValueError):  # one that is closed already
                os.dup2(null, number, inheritable=False)
        os.close(null)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_let_go)
