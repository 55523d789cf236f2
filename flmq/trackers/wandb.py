"""Write a run for Weights & Biases."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flmq.common.typing import Scalar
from flmq.observe.events import RunEnded, RunStarted
from flmq.trackers.errors import check_tracker
from flmq.trackers.tracking import TrackedRound, Tracker

__all__ = ["WandbObserver"]

_INIT_SECONDS = 60.0


class WandbObserver(Tracker):
    """Writes a W&B run named after the job, a step a round, as ``WANDB_MODE`` and its kin say.

    A resumed server goes on with the same run id. Where W&B is offline, what each server of the
    run wrote is a folder of its own; `wandb sync` brings them together by that id.
    """

    name = "Weights & Biases"

    def __init__(
        self,
        project: str,
        config: Mapping[str, Scalar] | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        """Write to ``project``; ``folder``: where W&B keeps files, if not ``wandb`` here.

        Raises:
            TrackerNotInstalled: wandb is not installed.
        """
        check_tracker(self.name, "wandb", "wandb", "wandb")
        super().__init__(config)
        self._project = project
        self._folder = folder
        self._run: Any = None

    def begin(self, started: RunStarted, config: Mapping[str, Scalar]) -> int:
        """Begin the run, or go on with it."""
        import wandb

        id_ = hashlib.sha256(f"{started.job} {started.run}".encode()).hexdigest()[:16]
        offline = os.environ.get("WANDB_MODE", "") in ("offline", "dryrun")
        before = offline and bool(self._written(id_))
        self._run = wandb.init(
            project=self._project,
            id=id_,
            name=started.job,
            config={name: _plain(value) for name, value in config.items()},
            dir=None if self._folder is None else str(self._folder),
            resume=None if offline else "allow",
            settings=wandb.Settings(silent=True, init_timeout=_INIT_SECONDS, console="off"),
        )
        if before:
            # What an earlier server wrote is in its folder.
            return max((each.server_round for each in started.earlier), default=0)
        return max(0, int(self._run.starting_step) - 1)

    def _written(self, id_: str) -> list[Path]:
        folder = Path(self._folder or os.environ.get("WANDB_DIR") or ".")
        return list((folder / "wandb").glob(f"offline-run-*-{id_}"))

    def tell(self, closed: TrackedRound) -> None:
        """Write a round."""
        self._run.log(dict(closed.figures), step=closed.step)
        if closed.failures:
            self._run.summary["failures"] = [f"round {closed.step}: {x}" for x in closed.failures]

    def end(self, ended: RunEnded, final: Mapping[str, float]) -> None:
        """Write the last measurements; W&B shows a run with an error as failed."""
        for name, figure in final.items():
            self._run.summary[f"final/{name}"] = figure
        if ended.error is not None:
            self._run.summary["error"] = ended.error
        self._run.finish(exit_code=0 if ended.error is None else 1)


def _plain(value: Scalar) -> bool | int | float | str:
    return repr(value) if isinstance(value, bytes) else value
