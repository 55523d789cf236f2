"""Pieces of what never becomes whole, in every queue: nobody waits for them, or holds them."""

from __future__ import annotations

from collections.abc import Mapping

from flmq.observe.events import RoundCounts
from flmq.transport import (
    REPLIES,
    TASKS,
    UPLOADS,
    Address,
    Message,
    own_model_key,
    own_models_topology,
    reply_key,
    task_key,
)
from flmq.wire import blob_chunk_headers
from tests.dataplane.test_publish_once import EachItsOwn
from tests.end_to_end.federation import JOB, Federation, initial
from tests.transport.rigs import PATIENCE

PIECES = 2_100
"""More than a worker or a server has un-acked at a time."""


def _pieces() -> list[Mapping[str, str | int]]:
    """Headers of pieces: of blobs, and as envelopes once had them."""
    old = {"x-flmq-chunk-index": 0, "x-flmq-chunk-count": PIECES, "x-flmq-chunk-total": PIECES}
    return [
        {**old, "x-flmq-chunk-digest": f"{number:032x}"}
        if number % 2
        else blob_chunk_headers(f"{number:064x}", number)
        for number in range(PIECES)
    ]


def _each_its_own() -> EachItsOwn:
    strategy = EachItsOwn(
        numbers=1_250_000,
        fraction_evaluate=0.0,
        min_available_clients=3,
        initial_parameters=initial(),
    )
    strategy.ask_only("a", "b")
    return strategy


def test_thousands_of_pieces_keep_nobody_from_a_large_model(federation: Federation) -> None:
    peer = federation.peer("hostile")
    federation.rig.witness().declare(own_models_topology("a"))
    federation.serve("a", "b")
    server = federation.run(_each_its_own(), rounds=2)
    addresses = (
        Address(TASKS, task_key("main", "a")),
        Address(TASKS, own_model_key("main", "a")),
        Address(REPLIES, reply_key("main", "a", JOB)),
        Address(UPLOADS, reply_key("main", "a", JOB)),
    )
    sent = [
        peer.publisher.publish(address, Message(b"x", headers=headers), mandatory=False)
        for address in addresses
        for headers in _pieces()
    ]
    for each in sent:
        each.result(PATIENCE)
    server.history(120)
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=2, accepted=2)] * 2
    # A worker that begins anew is not kept from it either.
    federation.workers["a"].stop()
    for headers in _pieces():
        peer.publisher.publish(addresses[0], Message(b"x", headers=headers))
    federation.serve("a")
    again = federation.run(_each_its_own(), job="another")
    again.history(120)
    assert [r.fit for r in again.watch.rounds()] == [RoundCounts(asked=2, accepted=2)]
