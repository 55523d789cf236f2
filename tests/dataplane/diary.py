"""An app for real processes: its clients write down each training, and can be held in one.

``FLMQ_TEST_DIARY`` names a folder. A client appends its process id to ``<id>`` when it begins to
train, and goes on once there is no ``<id>.hold``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from flmq.client.context import ClientContext
from flmq.common import Config, Metrics, NDArrays
from tests.end_to_end.federation import Nudge

__all__ = ["FOLDER", "client"]

FOLDER = "FLMQ_TEST_DIARY"
_HELD_AT_MOST = 100.0


class DiaryClient(Nudge):
    """Trains as `Nudge` does."""

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        folder = Path(os.environ[FOLDER])
        with (folder / self.client_id).open("a", encoding="utf-8") as diary:
            diary.write(f"{os.getpid()}\n")
        deadline = time.monotonic() + _HELD_AT_MOST
        while (folder / f"{self.client_id}.hold").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return super().fit(parameters, config)


def client(context: ClientContext) -> DiaryClient:
    """Make the client."""
    return DiaryClient(context.client_id)
