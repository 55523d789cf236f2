"""What went over the broker, seen by a connection of one's own; and what must come of a round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from flmq.common import FitRes, Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.server.strategy import FedAvg
from flmq.transport import MODELS, federation_topology, models_topology
from flmq.wire import blob_chunk_of
from tests.end_to_end.federation import OK, Nudge
from tests.server.proxies import IdleProxy
from tests.transport.rigs import Rig

__all__ = ["Stream", "mean_of", "published", "trained"]

_BEGINS_WITHIN = 2.0
"""Seconds that a reader of a stream may take to begin."""
_QUIET = 0.3


class Stream(Counter[tuple[str, int]]):
    """How often each chunk, by digest and index, is in the stream of models."""

    total_bytes = 0

    @property
    def digests(self) -> set[str]:
        """The models that are in it."""
        return {digest for digest, _ in self}


def published(rig: Rig) -> Stream:
    """What is in the stream of models."""
    transport = rig.witness()
    transport.declare(federation_topology() + models_topology())
    consumer = transport.consumer([MODELS], prefetch=1000, offset="first")
    found, patience = Stream(), _BEGINS_WITHIN
    while (delivery := consumer.receive(patience)) is not None:
        chunk = blob_chunk_of(delivery.message.headers, delivery.message.body)
        assert chunk is not None
        found[chunk.name, chunk.index] += 1
        found.total_bytes += len(chunk.data)
        consumer.ack(delivery)
        patience = _QUIET
    consumer.close()
    return found


def trained(client_id: str, parameters: Parameters) -> FitRes:
    """What a `Nudge` of this name makes of ``parameters``."""
    client = Nudge(client_id)
    tensors = client.nudged(parameters_to_ndarrays(parameters))
    return FitRes(OK, ndarrays_to_parameters(tensors), client.weight, {})


def mean_of(clients: Iterable[str], parameters: Parameters, rounds: int = 1) -> bytes:
    """What rounds of FedAvg over these clients make of ``parameters``, without any broker."""
    for server_round in range(1, rounds + 1):
        results = [(IdleProxy(name), trained(name, parameters)) for name in sorted(clients)]
        mean, _ = FedAvg().aggregate_fit(server_round, list(results), [])
        assert mean is not None
        parameters = mean
    return b"".join(parameters.tensors)
