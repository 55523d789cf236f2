"""Runs on a provisioned virtual host: the same bits, and nothing declared by who takes part."""

from __future__ import annotations

from flmq.common.typing import Scalar
from flmq.observe.events import Note, RoundCounts
from flmq.testing import fast_retries
from tests.end_to_end.federation import Federation, fed_avg, initial, nudge
from tests.security.hosts import Host
from tests.transport.rigs import MemoryRig

LARGE = 400_000
"""Numbers of a model that goes by the stream, and whose replies come in chunks."""


def serve(federation: Federation, host: Host, *users: str) -> None:
    """Start a worker for each client user."""
    for user in users:
        ids: dict[str, dict[str, Scalar]] = {client_id: {} for client_id in host.users.speaks[user]}
        transport = host.as_user(user)
        federation.workers[user] = federation.worker(ids, nudge, transport=transport)


def plain_model(*client_ids: str, size: int = LARGE, rounds: int = 2) -> bytes:
    """The model that these clients make where nothing is provisioned."""
    with fast_retries():
        rig = MemoryRig()
        federation = Federation(rig)
        federation.serve(*client_ids)
        strategy = fed_avg(len(client_ids), initial_parameters=initial(size))
        model = federation.run(strategy, rounds=rounds).model()
        federation.close()
        rig.close()
        return model


def test_clients_that_may_declare_nothing_make_the_same_bits(
    federation: Federation, host: Host
) -> None:
    users = host.users
    serve(federation, host, users.alice, users.bob)
    strategy = fed_avg(2, initial_parameters=initial(LARGE))
    server = federation.run(strategy, rounds=2)
    assert server.model() == plain_model(users.alice, users.bob)
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=2, accepted=2)] * 2
    assert not server.watch.of(Note)
