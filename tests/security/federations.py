"""Federations whose jobs are protected from end to end, and what their runs must have come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from flmq.client.options import WorkerOptions
from flmq.client.secure.keys import ClientKeys
from flmq.common import FitRes, Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.errors import PeerError
from flmq.common.phase import Phase
from flmq.e2e.keys import Identity
from flmq.observe.events import ClientOutcome, Outcome
from flmq.server.secure.keys import JobKeys
from flmq.server.strategy import FedAvg
from flmq.wire import Sealed, decode
from tests.end_to_end.federation import (
    OK,
    Federation,
    Nudge,
    RunningServer,
    RunningWorker,
    nudge,
)
from tests.security.hostile import Passing

__all__ = ["CLIENTS", "identity", "job_keys", "kind_of", "protected_worker", "verdict"]

CLIENTS = ("a", "b", "c")


@cache
def identity(name: str) -> Identity:
    """Return the keys of a client or a server: one set for all tests."""
    return Identity.new(name)


def job_keys(server: str = "server", clients: Sequence[str] = CLIENTS) -> JobKeys:
    """Return a server's keys, which trusts some clients."""
    return JobKeys(identity(server), {name: identity(name).public for name in clients})


def protected_worker(
    federation: Federation, client_id: str, *, server: str = "server", by: str = ""
) -> RunningWorker:
    """Start a worker that believes ``server`` alone; ``by``: with another client's key."""
    own = identity(by or client_id)
    keys = ClientKeys({client_id: replace(own, name=client_id)}, (identity(server).public,))
    options = WorkerOptions(heartbeat=1.0, keys=keys)
    return federation.worker({client_id: {}}, nudge, options)


def kind_of(passing: Passing) -> str:
    """Return what kind of message this says it is: all that a broker can read of it."""
    if passing.is_chunk:
        return "BlobChunk"
    try:
        body = decode(passing.body)
    except PeerError:
        return "nothing"  # the question how large a message may be
    return body.kind if isinstance(body, Sealed) else type(body).__name__


def verdict(server: RunningServer, start: Parameters, *, all_count: bool) -> None:
    """Assert that nothing was unnoticed in a run that has ended.

    Who did not count is named in each round, and the model has the bits that follow from who did.
    """
    model = start
    for closed in server.watch.rounds():
        named = {
            said.client_id: said.outcome
            for said in server.watch.of(ClientOutcome)
            if (said.server_round, said.phase) == (closed.server_round, Phase.FIT)
            and said.outcome not in (Outcome.LATE, Outcome.DUPLICATE)
        }
        assert set(named) == set(CLIENTS), f"somebody is not spoken of: {named}"
        accepted = [name for name in CLIENTS if named[name] is Outcome.ACCEPTED]
        assert closed.fit.accepted == len(accepted)
        assert not all_count or len(accepted) == len(CLIENTS), named
        model = _trained(model, accepted)
    assert server.watch.model() == b"".join(model.tensors)


class _Named:
    """What a strategy asks of a proxy."""

    def __init__(self, cid: str) -> None:
        self.cid = cid


def _trained(model: Parameters, clients: Sequence[str]) -> Parameters:
    """Return what a round makes of a model, with the replies of some clients alone."""
    if not clients:
        return model
    results: Any = []
    for name in clients:
        client = Nudge(name)
        tensors = client.nudged(parameters_to_ndarrays(model))
        res = FitRes(OK, ndarrays_to_parameters(tensors), client.weight, {})
        results.append((_Named(name), res))
    made, _ = FedAvg().aggregate_fit(1, results, [])
    assert made is not None
    return made
