"""How SIGTERM ends a client: what is at work is finished first, in the seconds that there are.

A signal's handler runs on the main thread, once that is back in Python's code: one call of a
library may take minutes. So a thread hears of the signal at once, by Python's wakeup file
descriptor, and says bye at once; and it ends the process where the main thread does not.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from flmq.cli.exit_codes import Terminated
from flmq.cli.saying import say
from flmq.common.logger import logger

__all__ = ["CLOSING", "SAME", "Drain", "Drainable"]

CLOSING = 5.0
"""Seconds for which a process whose grace is over may close its connections before it is ended."""
SAME = 1.0
"""Seconds within which a second SIGTERM is the first one: a service manager sends it to all
processes of a service, and the one that has children passes it on to them."""
_BEGIN, _OVER = b"\xfe", b"\xff"
"""What we write to ourselves beside the numbers of signals."""


class Drainable(Protocol):
    """What can be drained: a worker."""

    def drain(self) -> bool:
        """Begin nothing new; return False if it was not serving yet, and is to be interrupted."""

    def abandon(self) -> None:
        """Leave the current tasks to the next process. Blocks."""


class Drain:
    """Drain a worker when SIGTERM comes, for ``grace`` seconds at most.

    A second SIGTERM, or Ctrl-C, ends it at once, as the end of the grace does.
    """

    def __init__(
        self,
        grace: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        """Give ``grace`` seconds; 0: SIGTERM interrupts, as Ctrl-C does.

        ``clock`` gives seconds; ``end_process`` is called with the exit status where the main
        thread does not come back to Python's code.
        """
        self._grace = grace
        self._clock = clock
        self._end_process = end_process
        self._begun: float | None = None
        self._handled = False
        """Whether the handler has run for the first SIGTERM."""
        self._serves = False
        self._at_once = False

    @contextmanager
    def serving(self, worker: Drainable) -> Iterator[None]:
        """Drain ``worker`` when told to while the body runs it. For the main thread.

        Raises:
            Terminated: the body has ended because the worker was drained.
        """
        if self._grace <= 0:
            yield
            return
        self._ears, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._process = os.getpid()
        guard = threading.Thread(target=self._guard, args=(worker,), name="flmq-drain", daemon=True)
        before = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._in_a_fork)
        guard.start()
        self._serves = True
        try:
            yield
        finally:
            self._serves = False
            self._tell(_OVER)
            signal.set_wakeup_fd(before)
            guard.join()
            self._ears.close()
            self._mouth.close()
        if self._begun is not None:
            raise Terminated

    def hear(self) -> bool:
        """Take a SIGTERM, in its handler; return False if it is to interrupt the main thread."""
        if not self._serves or self._at_once or os.getpid() != self._process:
            return False
        first, self._handled = not self._handled, True
        if self._begun is None:
            # The guard has heard of it, unless the user's code has a wakeup descriptor of its own.
            self._begun = self._clock()
            self._tell(_BEGIN)
        # The handler may run minutes after the first SIGTERM came, once a long call is over.
        return first or self._clock() - self._begun < SAME

    def _in_a_fork(self) -> None:
        """Hear nothing in a process that the client's code forks: its signals are not for us."""
        if self._serves:
            signal.set_wakeup_fd(-1)

    def _tell(self, what: bytes) -> None:
        with suppress(OSError):
            self._mouth.send(what)

    # -- the guard's thread ------------------------------------------------------------------

    def _guard(self, worker: Drainable) -> None:
        by = self._watch(worker)
        if by is not None:
            self._end(worker, by)

    def _watch(self, worker: Drainable) -> signal.Signals | None:
        """Drain the worker when told to; return by which signal it is to end, if it does not."""
        begun: float | None = None
        while True:
            left = None if begun is None else begun + self._grace - self._clock()
            heard = self._listen(left)
            if heard == _OVER:
                return None
            if heard in (_BEGIN, _SIGTERM) and begun is None:
                begun = self._begun = self._clock()
                if not worker.drain():
                    return signal.SIGTERM
                logger.info(
                    "SIGTERM: no task is begun any more; what is at work has %g s", self._grace
                )
            elif begun is None or heard == _BEGIN:
                continue
            elif heard == b"":
                logger.warning("%g s are over: what is at work is left", self._grace)
                return signal.SIGTERM
            elif heard == _SIGTERM and self._clock() - begun >= SAME:
                return signal.SIGTERM
            elif heard == _SIGINT:
                return signal.SIGINT

    def _listen(self, seconds: float | None) -> bytes:
        """Return what was heard: a signal's number or our own word; empty after ``seconds``."""
        self._ears.settimeout(None if seconds is None else max(seconds, 0.001))
        try:
            return self._ears.recv(1)
        except TimeoutError:
            return b""

    def _end(self, worker: Drainable, by: signal.Signals) -> None:
        """Interrupt the main thread; where it does not end in time, end the process."""
        self._at_once = True
        if by is signal.SIGTERM:  # SIGINT has a handler of its own, which does it
            _interrupt_main_thread()
        end = self._clock() + CLOSING
        while (left := end - self._clock()) > 0:
            if self._listen(left) == _OVER:
                return
        closing = threading.Thread(target=worker.abandon, daemon=True)
        closing.start()
        closing.join(1.0)
        say("ended by force: its code, or its connections, did not come to an end", "ERROR")
        sys.stderr.flush()
        self._end_process(128 + by)


def _interrupt_main_thread() -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGTERM)  # it also ends a call that waits in the kernel
    else:
        signal.raise_signal(signal.SIGTERM)


_SIGTERM, _SIGINT = bytes([signal.SIGTERM]), bytes([signal.SIGINT])
