"""What a transport has declared, so that it can declare it again after a loss."""

from __future__ import annotations

from flmq.transport.topology import Binding, Exchange, Queue, Topology

__all__ = ["Declared"]


class Declared:
    """Exchanges, queues and bindings, each once, in the order they were declared."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._exchanges: dict[str, Exchange] = {}
        self._queues: dict[str, Queue] = {}
        self._bindings: dict[Binding, None] = {}

    def add(self, topology: Topology) -> None:
        """Remember ``topology``."""
        self._exchanges |= {exchange.name: exchange for exchange in topology.exchanges}
        self._queues |= {queue.name: queue for queue in topology.queues}
        self._bindings |= dict.fromkeys(topology.bindings)

    def forget_queue(self, name: str) -> None:
        """Forget a queue that was deleted on purpose, and its bindings."""
        self._queues.pop(name, None)
        self._bindings = {
            binding: None
            for binding in self._bindings
            if binding.to_exchange or binding.destination != name
        }

    def exclusive_queues(self) -> frozenset[str]:
        """Names of the exclusive ones, which live on the connection that declared them."""
        return frozenset(name for name, queue in self._queues.items() if queue.exclusive)

    def topology(self) -> Topology:
        """Everything."""
        return Topology(
            tuple(self._exchanges.values()),
            tuple(self._queues.values()),
            tuple(self._bindings),
        )
