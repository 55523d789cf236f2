"""The threads of a worker, including the caller's; the end of any of them ends all."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flmq.client.serving.backlog import Backlog
from flmq.common.failure_text import named_error
from flmq.common.logger import logger

__all__ = ["Hands"]


class Hands:
    """Run a function on several threads until told to stop. Thread-safe."""

    def __init__(self, threads: int, backlog: Backlog) -> None:
        """Use ``threads`` threads, including the caller of `run`, which take from ``backlog``."""
        self._threads = threads
        self._backlog = backlog
        self._lock = threading.Lock()
        self._trouble: BaseException | None = None

    def run(self, work: Callable[[], None]) -> None:
        """Call ``work`` on every thread, and wait for all. Blocks until `stop`.

        The first exception in any thread, or given to `fail`, is raised. An exception in the
        caller's own thread, such as Ctrl-C, passes at once, without waiting for the others.
        """
        helpers = [
            threading.Thread(target=self._help, args=(work,), name=f"flmq-work-{i}", daemon=True)
            for i in range(1, self._threads)
        ]
        for helper in helpers:
            helper.start()
        try:
            work()
        except BaseException:
            self.stop()
            raise
        for helper in helpers:
            helper.join()
        if self._trouble is not None:
            raise self._trouble

    def stop(self) -> None:
        """Make `run` return after the current tasks."""
        self._backlog.stop(self._threads)

    def drain(self) -> None:
        """Make `run` return after the current tasks, which may take the time that they need."""
        self._backlog.drain(self._threads)

    def fail(self, error: BaseException) -> None:
        """Make `run` raise ``error`` (the first one given) after the current tasks."""
        with self._lock:
            if self._trouble is None:
                self._trouble = error
        self.stop()

    def _help(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # whatever it is, it is raised in the caller's thread
            logger.error("a working thread ended: %s", named_error(error))
            self.fail(error)
