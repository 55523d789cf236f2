"""The demo's kills, told to its server, whose view shows them: the server cannot know of them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flmq.common.files import append_private
from flmq.observe.events import RunEvent
from flmq.observe.record import killed_note

__all__ = ["KILLS_FILE", "kills_source", "tell_kills"]

KILLS_FILE = "FLMQ_DEMO_KILLS"
"""Names the file to the server's process."""
_LOOK_EVERY = 0.05


def tell_kills(path: Path, client_ids: Sequence[str], server_round: int) -> None:
    """Say in the file at ``path`` who was killed in which round."""
    with append_private(path) as file:
        file.write(f"{server_round} {' '.join(client_ids)}\n".encode())


def kills_source() -> Callable[[Callable[[RunEvent], None]], None] | None:
    """What tells a run's observers the kills that `tell_kills` says; None: this is no demo."""
    name = os.environ.get(KILLS_FILE)
    if name is None:
        return None
    path = Path(name)

    def start(emit: Callable[[RunEvent], None]) -> None:
        threading.Thread(target=_follow, args=(path, emit), name="flmq-kills", daemon=True).start()

    return start


def _follow(path: Path, emit: Callable[[RunEvent], None]) -> None:
    told = 0
    while True:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for line in lines[told:]:
            server_round, *client_ids = line.split()
            emit(killed_note(client_ids, int(server_round)))
        told = len(lines)
        time.sleep(_LOOK_EVERY)
