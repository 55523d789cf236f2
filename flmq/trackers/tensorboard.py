"""Write a run for TensorBoard, by tensorboardX."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flmq.common.typing import Scalar
from flmq.observe.events import RunEnded, RunStarted
from flmq.trackers.errors import check_tracker
from flmq.trackers.tracking import TrackedRound, Tracker

__all__ = ["TensorBoardObserver"]


class TensorBoardObserver(Tracker):
    """Writes event files into ``folder``/<job>, a step a round.

    A resumed server writes a file of its own that begins with all earlier rounds; TensorBoard
    shows these in place of what its predecessors wrote, so that no step is there twice.
    """

    name = "TensorBoard"

    def __init__(
        self, folder: str | os.PathLike[str], config: Mapping[str, Scalar] | None = None
    ) -> None:
        """Write below ``folder``; ``config``: hyperparameters to show beside the results.

        Raises:
            TrackerNotInstalled: tensorboardX is not installed.
        """
        check_tracker(self.name, "tensorboardX", "tensorboardX", "tensorboard")
        super().__init__(config)
        self._folder = Path(folder)
        self._told: Mapping[str, Scalar] = {}
        self._writer: Any = None

    def begin(self, started: RunStarted, config: Mapping[str, Scalar]) -> int:
        """Open a file; earlier rounds are written again."""
        from tensorboardX import SummaryWriter

        self._told = config
        # A purge hides what earlier files have from this step on.
        first = min((each.server_round for each in started.earlier), default=None)
        self._writer = SummaryWriter(
            str(self._folder / started.job),
            purge_step=0 if first is not None else None,
            filename_suffix=f".{os.getpid()}",
            flush_secs=10,
        )
        shown = "\n".join(f"    {name} = {value!r}" for name, value in config.items())
        self._writer.add_text("configuration", shown, 0)
        return 0

    def tell(self, closed: TrackedRound) -> None:
        """Write a round."""
        for name, figure in closed.figures.items():
            self._writer.add_scalar(name, figure, closed.step)
        if closed.failures:
            # Indented: Markdown takes it as it is, whatever clients put into it.
            text = "\n".join(f"    {line}" for line in closed.failures)
            self._writer.add_text("failures", text, closed.step)
        self._writer.flush()

    def end(self, ended: RunEnded, final: Mapping[str, float]) -> None:
        """Write the last measurements, with the hyperparameters that led to them."""
        from tensorboardX.summary import hparams

        if ended.error is not None:
            self._writer.add_text("error", f"    {ended.error}", ended.rounds)
        else:
            named = {f"final/{name}": figure for name, figure in final.items()}
            plain = {name: _plain(value) for name, value in self._told.items()}
            for summary in hparams(plain, named):
                self._writer.file_writer.add_summary(summary)
            for name, figure in named.items():
                self._writer.add_scalar(name, figure, ended.rounds)
        self._writer.close()


def _plain(value: Scalar) -> bool | int | float | str:
    return repr(value) if isinstance(value, bytes) else value
