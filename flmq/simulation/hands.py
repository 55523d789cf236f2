"""On what simulated clients are trained: so many threads, or so many processes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Literal

from flmq.client.factory import ClientSource
from flmq.client.options import WorkerOptions
from flmq.client.pool.pool import ProcessPool
from flmq.common.errors import UsageError

__all__ = ["Hands", "InvalidSimulation"]


class InvalidSimulation(UsageError):
    """The arguments of `start_simulation` contradict each other or are invalid."""


@dataclass(frozen=True, slots=True)
class Hands:
    """How many tasks are done at a time, and whether in processes."""

    count: int
    processes: bool = False

    @classmethod
    def of(
        cls,
        threads: int | None = None,
        max_workers: int | Literal["auto"] | None = None,
        client_resources: Mapping[str, float] | None = None,
    ) -> Hands:
        """Read the arguments of `start_simulation`.

        Raises:
            InvalidSimulation: they contradict each other, or one is no number that it may be.
        """
        if threads is not None and max_workers is not None:
            raise InvalidSimulation("give threads=... or max_workers=..., one of the two")
        each = _processors_each(client_resources)
        default = max(1, int((os.cpu_count() or 1) / each))
        if max_workers is None:
            return cls(default if threads is None else _counted("threads", threads))
        if max_workers == "auto":
            return cls(default, processes=True)
        return cls(_counted("max_workers", max_workers), processes=True)

    def options(self, source: ClientSource, meanwhile: contextlib.ExitStack) -> WorkerOptions:
        """Return options of a worker; ``meanwhile`` ends the processes and removes their folder.

        Raises:
            UsageError: ``source`` cannot be handed to processes.
        """
        if not self.processes:
            return WorkerOptions(threads=self.count, max_deaths=0)
        folder = Path(
            meanwhile.enter_context(
                tempfile.TemporaryDirectory(prefix="flmq-models-", ignore_cleanup_errors=True)
            )
        )
        pool = meanwhile.enter_context(contextlib.closing(ProcessPool(source, self.count, folder)))
        return WorkerOptions(threads=self.count, max_deaths=0, cache_dir=folder, pool=pool)


def _counted(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidSimulation(f"{name}={value!r}: give a number of 1 or more")
    return value


def _processors_each(resources: Mapping[str, float] | None) -> float:
    value = (resources or {}).get("num_cpus", 1)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not isfinite(value) or value <= 0:
        raise InvalidSimulation(
            f'client_resources={{"num_cpus": {value!r}}}: give a number above 0, or leave it out'
        )
    return value
