"""What a process says of itself when it is asked: whether it lives, is ready, and what it holds.

Its parts add what they know as functions, which cost nothing until somebody asks:
`flmq.monitoring` does, for Prometheus and for probes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from flmq.transport import ConnectionEvent, ConnectionState
from flmq.transport.outages import OutageReporter

__all__ = ["Connection", "Measure", "Vitals"]

_TROUBLED = (ConnectionState.LOST, ConnectionState.BLOCKED)


@dataclass(frozen=True, slots=True)
class Measure:
    """A quantity of the process that is read when it is asked for."""

    name: str
    read: Callable[[], Mapping[str, float]]
    """Returns the quantity by what tells several of a kind apart; by "" if there is but one."""
    blocks: bool
    """Whether reading it may take long: it asks the broker, or walks through folders."""


@dataclass(frozen=True, slots=True)
class _Loop:
    name: str
    turned: Callable[[], float]
    allowed: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Connection:
    """The connection to the broker so far: of several, the worst at each time."""

    state: ConnectionState | None
    """None: none was made yet."""
    detail: str
    since: float
    """Monotonic seconds."""
    losses: int
    """How often it was lost."""
    seconds: Mapping[ConnectionState, float]
    """How long it was lost, and how long blocked, in all."""


class Vitals:
    """What the parts of one process say of it. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet; ``clock`` gives monotonic seconds, as the clocks of all loops do."""
        self._clock = clock
        self._lock = threading.Lock()
        self._whole = OutageReporter(self._changed, clock)
        self._loops: list[_Loop] = []
        self._needs: dict[str, Callable[[], str]] = {}
        self._measures: list[Measure] = []
        self._state: ConnectionState | None = None
        self._detail = ""
        self._since = clock()
        self._losses = 0
        self._seconds = dict.fromkeys(_TROUBLED, 0.0)

    # -- what the parts say ------------------------------------------------------------------

    def loop(self, name: str, turned: Callable[[], float], allowed: Callable[[], float]) -> None:
        """Add a loop: ``turned`` returns when it last came round, in monotonic seconds.

        It is stuck if that is more than ``allowed()`` seconds ago while the broker is there.
        """
        with self._lock:
            self._loops.append(_Loop(name, turned, allowed))

    def needs(self, name: str, lacks: Callable[[], str]) -> None:
        """Add a condition of being ready; ``lacks`` returns what is wrong, or nothing.

        A later one of the same name replaces it.
        """
        with self._lock:
            self._needs[name] = lacks

    def measure(self, name: str, read: Callable[[], float]) -> None:
        """Add a quantity that can be read at once. ``name``: see `flmq.monitoring.families`."""
        self.measures(name, lambda: {"": read()})

    def measures(
        self, name: str, read: Callable[[], Mapping[str, float]], *, blocks: bool = False
    ) -> None:
        """Add quantities of a kind, told apart by what ``read`` returns them by.

        These must be few and our own words: never what a peer may choose.
        """
        with self._lock:
            self._measures.append(Measure(name, read, blocks))

    def connection_changed(self, event: ConnectionEvent) -> None:
        """Take a change of one of the connections; a `flmq.transport.StateListener`."""
        self._whole(event)

    def _changed(self, event: ConnectionEvent) -> None:
        """Take a change of all connections as one: the worst of their states."""
        with self._lock:
            if event.state is not self._state:
                now = self._clock()
                if self._state in _TROUBLED:
                    self._seconds[self._state] += now - self._since
                if event.state is ConnectionState.LOST:
                    self._losses += 1
                self._state, self._since = event.state, now
            self._detail = event.detail

    # -- what is asked -----------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """The connection to the broker so far."""
        with self._lock:
            seconds = dict(self._seconds)
            if self._state in _TROUBLED:
                seconds[self._state] += self._clock() - self._since
            return Connection(self._state, self._detail, self._since, self._losses, seconds)

    def silences(self) -> Mapping[str, float]:
        """Return the seconds since each loop last came round, while the broker was there."""
        return {loop.name: silent for loop, silent in self._silent()}

    def stuck(self) -> list[str]:
        """Return a line for each loop that is stuck."""
        return [
            f"{loop.name}: nothing goes on for {silent:.0f} s"
            for loop, silent in self._silent()
            if silent > loop.allowed()
        ]

    def unready(self) -> list[str]:
        """Return a line for each reason why the process does not do its work now."""
        connection = self.connection
        lacks: list[str] = []
        if connection.state is None:
            lacks.append("broker: not connected yet")
        elif connection.state is not ConnectionState.CONNECTED:
            lacks.append(f"broker: {connection.state.value} {connection.detail}".rstrip())
        with self._lock:
            needs = list(self._needs.items())
        return lacks + [f"{name}: {why}" for name, lack in needs if (why := lack())]

    def all_measures(self) -> list[Measure]:
        """Return the quantities that can be read."""
        with self._lock:
            return list(self._measures)

    def _silent(self) -> Iterator[tuple[_Loop, float]]:
        connection, now = self.connection, self._clock()
        with self._lock:
            loops = list(self._loops)
        for loop in loops:
            if connection.state in _TROUBLED:
                yield loop, 0.0  # what waits for a broker is not mended by another start
            else:
                yield loop, max(0.0, now - max(loop.turned(), connection.since))
