"""Tell the demo's server, which shows them, which clients the demo has killed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from flmq.common.files import append_private
from flmq.observe.events import RunEnded, RunEvent
from flmq.observe.record import killed_note

__all__ = ["KILLS_FILE", "KillsFollower", "tell_kills"]

KILLS_FILE = "FLMQ_DEMO_KILLS"
"""Environment variable with the file's path, for the server's process."""
_LOOK_EVERY = 0.05


def tell_kills(path: Path, client_ids: Sequence[str], server_round: int) -> None:
    """Append to the file at ``path`` which clients were killed in which round."""
    with append_private(path) as file:
        file.write(f"{server_round} {' '.join(client_ids)}\n".encode())


class KillsFollower:
    """Tell a run's observers the kills that `tell_kills` wrote, until the run ends.

    `start` is a source of events, for a run's options; the follower itself is an observer.
    """

    def __init__(self, path: Path) -> None:
        """Follow the file at ``path``, which may be created later."""
        self._path = path
        self._over = threading.Event()

    @classmethod
    def of_demo(cls) -> KillsFollower | None:
        """Return a follower for the demo that this server is part of; None if it is not."""
        name = os.environ.get(KILLS_FILE)
        return None if name is None else cls(Path(name))

    def __call__(self, event: RunEvent) -> None:
        """Stop at the run's end."""
        if isinstance(event, RunEnded):
            self._over.set()

    def start(self, emit: Callable[[RunEvent], None]) -> None:
        """Call ``emit`` with a note for each kill, from a thread of its own."""
        threading.Thread(target=self._follow, args=(emit,), name="flmq-kills", daemon=True).start()

    def _follow(self, emit: Callable[[RunEvent], None]) -> None:
        told = 0
        while not self._over.wait(_LOOK_EVERY):
            lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
            for line in lines[told:]:
                server_round, *client_ids = line.split()
                emit(killed_note(client_ids, int(server_round)))
            told = len(lines)
