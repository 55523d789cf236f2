"""Remember what a transport has declared, to declare it again after a loss."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from flmq.transport.topology import Binding, Exchange, Queue, QueueType, Topology

__all__ = ["Declared"]


class Declared:
    """Exchanges, queues and bindings, each once, in order of declaration. Thread-safe."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.RLock()
        self._exchanges: dict[str, Exchange] = {}
        self._queues: dict[str, Queue] = {}
        self._bindings: dict[Binding, None] = {}
        self._found: dict[tuple[str, str], int | str | None] = {}

    def add(self, topology: Topology) -> None:
        """Remember ``topology``."""
        with self._lock:
            self._exchanges.update((one.name, one) for one in topology.exchanges)
            self._queues.update((one.name, one) for one in topology.queues)
            self._bindings.update(dict.fromkeys(topology.bindings))

    def forget_queue(self, name: str) -> None:
        """Forget a queue that was deleted on purpose, and its bindings."""
        with self._lock:
            self._queues.pop(name, None)
            for binding in [one for one in self._bindings if one.destination == name]:
                if not binding.to_exchange:
                    del self._bindings[binding]

    def queue(self, name: str) -> Queue | None:
        """Return how a queue was declared; None if it was not."""
        return self._queues.get(name)

    def find(self, name: str, argument: str, value: int | str | None) -> bool:
        """Note that a queue exists with another value of an argument (None: without it).

        Return False if that was known already.
        """
        with self._lock:
            known = (name, argument) in self._found and self._found[name, argument] == value
            self._found[name, argument] = value
        return not known

    def as_found(self, topology: Topology) -> Topology:
        """Return ``topology`` with its queues' arguments as they exist on the broker."""
        others: dict[str, dict[str, int | str | None]] = {}
        with self._lock:
            for (name, argument), value in self._found.items():
                others.setdefault(name, {})[argument] = value
        return replace(
            topology,
            queues=tuple(_as_found(one, others.get(one.name, {})) for one in topology.queues),
        )

    def topology(self) -> Topology:
        """Return everything."""
        with self._lock:
            return Topology(
                tuple(self._exchanges.values()),
                tuple(self._queues.values()),
                tuple(self._bindings),
            )

    def shared(self) -> Topology:
        """Return everything except exclusive queues and streams."""
        with self._lock:
            apart = self.exclusive() + self.streams()
            everything = self.topology()
        return Topology(
            everything.exchanges,
            tuple(queue for queue in everything.queues if queue not in apart.queues),
            tuple(binding for binding in everything.bindings if binding not in apart.bindings),
        )

    def exclusive(self) -> Topology:
        """Return the exclusive queues, which live on the connection that declared them."""
        return self._only(lambda queue: queue.exclusive)

    def streams(self) -> Topology:
        """Return the streams."""
        return self._only(lambda queue: queue.type is QueueType.STREAM)

    def _only(self, wanted: Callable[[Queue], bool]) -> Topology:
        everything = self.topology()
        queues = {queue.name: queue for queue in everything.queues if wanted(queue)}
        return Topology(
            queues=tuple(queues.values()),
            bindings=tuple(
                binding
                for binding in everything.bindings
                if not binding.to_exchange and binding.destination in queues
            ),
        )


def _as_found(queue: Queue, others: Mapping[str, int | str | None]) -> Queue:
    """Return the queue with these values of its arguments; None: without the argument."""
    arguments = {**queue.arguments, **others}
    return replace(queue, arguments={n: v for n, v in arguments.items() if v is not None})
