"""Tell the demo's server, which shows them, which clients the demo has killed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from flmq.cli.following import Follower
from flmq.common.files import append_private
from flmq.observe.events import Note
from flmq.observe.record import killed_note

__all__ = ["KILLS_FILE", "KillsFollower", "tell_kills"]

KILLS_FILE = "FLMQ_DEMO_KILLS"
"""Environment variable with the file's path, for the server's process."""
_LOOK_EVERY = 0.05


def tell_kills(path: Path, client_ids: Sequence[str], server_round: int) -> None:
    """Append to the file at ``path`` which clients were killed in which round."""
    with append_private(path) as file:
        file.write(f"{server_round} {' '.join(client_ids)}\n".encode())


class KillsFollower(Follower):
    """Tell a run's observers the kills that `tell_kills` wrote, until the run ends."""

    def __init__(self, path: Path) -> None:
        """Follow the file at ``path``, which may be created later."""
        super().__init__("flmq-kills", _LOOK_EVERY)
        self._path = path
        self._told = 0

    @classmethod
    def of_demo(cls) -> KillsFollower | None:
        """Return a follower for the demo that this server is part of; None if it is not."""
        name = os.environ.get(KILLS_FILE)
        return None if name is None else cls(Path(name))

    def news(self) -> Iterator[Note]:
        """Read the file, and yield a note for each kill that is new in it."""
        lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
        for line in lines[self._told :]:
            server_round, *client_ids = line.split()
            yield killed_note(client_ids, int(server_round))
        self._told = len(lines)
