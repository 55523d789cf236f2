"""Options by which a server writes its run where other tools show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flmq.common.options import option
from flmq.common.typing import Scalar
from flmq.observe.events import Observer

__all__ = ["Trackers"]


@dataclass(frozen=True, slots=True)
class Trackers:
    """Which tools are told of the run."""

    tensorboard: Path | None = option(
        None, "Folder to write for TensorBoard; needs the extra `tensorboard`."
    )
    mlflow: str | None = option(
        None,
        "URI of MLflow to write to: http://host:5000, sqlite:///mlflow.db; needs the extra "
        "`mlflow`.",
    )
    wandb: str | None = option(
        None, "Project of Weights & Biases to write to; needs the extra `wandb`."
    )

    def observers(self, config: Mapping[str, Scalar]) -> tuple[Observer, ...]:
        """Return the observers, which tell ``config`` as hyperparameters.

        Raises:
            TrackerNotInstalled: the package of one is not installed.
        """
        made: list[Observer] = []
        # Each is imported only where it is wanted.
        if self.tensorboard is not None:
            from flmq.trackers.tensorboard import TensorBoardObserver

            made.append(TensorBoardObserver(self.tensorboard, config))
        if self.mlflow is not None:
            from flmq.trackers.mlflow import MlflowObserver

            made.append(MlflowObserver(self.mlflow, config=config))
        if self.wandb is not None:
            from flmq.trackers.wandb import WandbObserver

            made.append(WandbObserver(self.wandb, config))
        return tuple(made)
