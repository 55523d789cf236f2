"""Write a run to an MLflow server or database, by mlflow-skinny."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from flmq.common.typing import Scalar
from flmq.observe.events import RunEnded, RunStarted
from flmq.trackers.errors import check_tracker
from flmq.trackers.tracking import TrackedRound, Tracker

__all__ = ["MlflowObserver"]

_RUN = "flmq.run"
_MARK = "round/number"
"""The metric that is written last of a round, and says that the round is there."""
_MOST = 900
"""Metrics of one request; MLflow takes 1000."""
_LONGEST = 250
_OTHER = re.compile(r"[^\w\-. :/]")


class MlflowObserver(Tracker):
    """Writes an MLflow run named after the job, a step a round.

    A resumed server goes on with the run that has its id as the tag ``flmq.run``, after the last
    round that is there.
    """

    name = "MLflow"

    def __init__(
        self,
        uri: str,
        experiment: str = "flmq",
        config: Mapping[str, Scalar] | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Write to the tracking ``uri``, such as http://host:5000 or sqlite:///mlflow.db.

        Raises:
            TrackerNotInstalled: mlflow-skinny is not installed.
        """
        check_tracker(self.name, "mlflow.tracking", "mlflow-skinny", "mlflow")
        if not uri.startswith(("http:", "https:", "databricks", "file:")) and "://" in uri:
            check_tracker(self.name, "mlflow.store.tracking.sqlalchemy_store", "mlflow", "mlflow")
        super().__init__(config)
        self._uri = uri
        self._experiment = experiment
        self._clock = clock
        self._client: Any = None
        self._id = ""
        self._partly = False
        """Whether the next round may be there in part."""

    def begin(self, started: RunStarted, config: Mapping[str, Scalar]) -> int:
        """Find the job's run, or create it."""
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=self._uri)
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = (
            self._client.create_experiment(self._experiment)
            if found is None
            else found.experiment_id
        )
        key = started.run or started.job
        known = (
            self._client.search_runs([experiment], f"tags.`{_RUN}` = '{key}'", max_results=1)
            if started.earlier
            else []
        )
        if not known:
            run = self._client.create_run(experiment, run_name=started.job, tags={_RUN: key})
            self._id = run.info.run_id
            for name, value in config.items():
                self._client.log_param(self._id, _named(name), str(value)[:_LONGEST])
            return 0
        self._id = known[0].info.run_id
        self._client.update_run(self._id, status="RUNNING")
        marks = self._client.get_metric_history(self._id, _MARK)
        self._partly = True
        return max((mark.step for mark in marks), default=0)

    def tell(self, closed: TrackedRound) -> None:
        """Write a round; what a predecessor, or a call that failed, wrote of it is left out."""
        from mlflow.entities import Metric

        now = int(self._clock() * 1000)
        named: dict[str, float] = {}
        for name, figure in closed.figures.items():
            named.setdefault(_named(name), figure)
        metrics = [
            Metric(name, figure, now, closed.step)
            for name, figure in named.items()
            if not (self._partly and self._has(name, closed.step))
        ]
        self._partly = True
        for first in range(0, len(metrics), _MOST):
            self._client.log_batch(self._id, metrics=metrics[first : first + _MOST])
        if closed.failures:
            lines = "\n".join(closed.failures)[:4000]
            self._client.set_tag(self._id, "flmq.failures", f"round {closed.step}\n{lines}")
        self._client.log_metric(self._id, _MARK, closed.step, now, closed.step)
        self._partly = False

    def _has(self, name: str, step: int) -> bool:
        return any(each.step == step for each in self._client.get_metric_history(self._id, name))

    def end(self, ended: RunEnded, final: Mapping[str, float]) -> None:
        """Write the last measurements and the run's state."""
        if ended.error is not None:
            self._client.set_tag(self._id, "flmq.error", ended.error[:4000])
            status = "KILLED" if ended.stopped else "FAILED"
        else:
            status = "FINISHED"
            for name, figure in final.items():
                self._client.log_metric(
                    self._id, _named(f"final/{name}"), figure, step=ended.rounds
                )
        self._client.set_terminated(self._id, status)


def _named(name: str) -> str:
    """Return a name with the characters that MLflow takes, and of a length that it does."""
    return _OTHER.sub("_", name)[:_LONGEST].strip("/. ") or "_"
