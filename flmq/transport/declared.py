"""Remember what a transport has declared, to declare it again after a loss."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from flmq.transport.topology import Binding, Exchange, Queue, QueueType, Topology

__all__ = ["Declared"]


class Declared:
    """Exchanges, queues and bindings, each once, in order of declaration. Thread-safe."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        # Replaced, never modified: a reader keeps its snapshot.
        self._exchanges: dict[str, Exchange] = {}
        self._queues: dict[str, Queue] = {}
        self._bindings: dict[Binding, None] = {}
        self._found: dict[tuple[str, str], int | str | None] = {}

    def add(self, topology: Topology) -> None:
        """Remember ``topology``."""
        with self._lock:
            self._exchanges = self._exchanges | {one.name: one for one in topology.exchanges}
            self._queues = self._queues | {one.name: one for one in topology.queues}
            self._bindings = self._bindings | dict.fromkeys(topology.bindings)

    def forget_queue(self, name: str) -> None:
        """Forget a queue that was deleted on purpose, and its bindings."""
        with self._lock:
            self._queues = {key: queue for key, queue in self._queues.items() if key != name}
            self._bindings = {
                binding: None
                for binding in self._bindings
                if binding.to_exchange or binding.destination != name
            }

    def queue(self, name: str) -> Queue | None:
        """Return how a queue was declared; None if it was not."""
        return self._queues.get(name)

    def find(self, name: str, argument: str, value: int | str | None) -> bool:
        """Note that a queue exists with another value of an argument (None: without it).

        Return False if that was known already.
        """
        with self._lock:
            known = (name, argument) in self._found and self._found[name, argument] == value
            self._found = self._found | {(name, argument): value}
        return not known

    def as_found(self, topology: Topology) -> Topology:
        """Return ``topology`` with its queues' arguments as they exist on the broker."""
        return replace(topology, queues=tuple(self._as_found(one) for one in topology.queues))

    def _as_found(self, queue: Queue) -> Queue:
        others = {argument: v for (name, argument), v in self._found.items() if name == queue.name}
        arguments = {**queue.arguments, **others}
        return replace(queue, arguments={n: v for n, v in arguments.items() if v is not None})

    def topology(self) -> Topology:
        """Return everything."""
        return Topology(
            tuple(self._exchanges.values()),
            tuple(self._queues.values()),
            tuple(self._bindings),
        )

    def shared(self) -> Topology:
        """Return everything except exclusive queues and streams."""
        apart = self.exclusive() + self.streams()
        return Topology(
            tuple(self._exchanges.values()),
            tuple(queue for queue in self._queues.values() if queue not in apart.queues),
            tuple(binding for binding in self._bindings if binding not in apart.bindings),
        )

    def exclusive(self) -> Topology:
        """Return the exclusive queues, which live on the connection that declared them."""
        return self._only(lambda queue: queue.exclusive)

    def streams(self) -> Topology:
        """Return the streams."""
        return self._only(lambda queue: queue.type is QueueType.STREAM)

    def _only(self, wanted: Callable[[Queue], bool]) -> Topology:
        queues = {queue.name: queue for queue in self._queues.values() if wanted(queue)}
        return Topology(
            queues=tuple(queues.values()),
            bindings=tuple(
                binding
                for binding in self._bindings
                if not binding.to_exchange and binding.destination in queues
            ),
        )
