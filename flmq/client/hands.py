"""The threads of a worker, the caller's among them: the end of each is an event."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from flmq.client.work import Waiting
from flmq.common.failure_text import named_error
from flmq.common.logger import logger

__all__ = ["Hands"]


class Hands:
    """Runs something on several threads until it is told to stop. Thread-safe."""

    def __init__(self, threads: int) -> None:
        """Have ``threads`` of them, the caller's of `run` among them."""
        self._threads = threads
        self._lock = threading.Lock()
        self._trouble: BaseException | None = None
        self.waiting: Waiting = SimpleQueue()
        """Tasks that wait for a thread, and None for each that is to end."""
        self.stopping = threading.Event()

    def run(self, work: Callable[[], None]) -> None:
        """Call ``work`` on every thread, and wait for all. Blocks until `stop`.

        What ended any of them, or `fail` was told, is raised. What ends the caller's own, such as
        Ctrl-C, passes at once: nobody waits for the others.
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
        """Have `run` return after the tasks at hand."""
        with self._lock:
            if self.stopping.is_set():
                return
            self.stopping.set()
        for _ in range(self._threads):
            self.waiting.put(None)

    def fail(self, error: BaseException) -> None:
        """Have `run` raise ``error``, the first that it is told of, after the tasks at hand."""
        with self._lock:
            if self._trouble is None:
                self._trouble = error
        self.stop()

    def _help(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # whatever it is, the caller's thread is to know
            logger.error("a working thread ended: %s", named_error(error))
            self.fail(error)
