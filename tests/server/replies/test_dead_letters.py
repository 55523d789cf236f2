"""What cannot be read goes to the dead letters with the reason, and the run goes on unmoved."""

from __future__ import annotations

from flmq.observe.events import ClientOutcome, Outcome, RoundCounts
from flmq.transport import (
    PRESENCE,
    REPLIES,
    TASKS,
    UPLOADS,
    Address,
    client_queue,
    presence_key,
    presence_queue,
    replies_queue,
    reply_key,
    task_key,
)
from flmq.wire import Body, JobEnded, RollCall, blob_chunk_headers, encode
from flmq.wire.bounds import MAX_EPOCH
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from tests.end_to_end.federation import JOB, Federation, Peer, fed_avg
from tests.transport.oddities import ODD

GOOD = encode(JobEnded("another", 1))


def _version(major: int) -> bytes:
    envelope = pb.Envelope.FromString(GOOD)
    envelope.schema_major = major
    return envelope.SerializeToString()


def _nothing() -> bytes:
    return pb.Envelope(schema_major=1).SerializeToString()


def _many_metrics(count: int) -> bytes:
    envelope = pb.Envelope(schema_major=1)
    for number in range(count):
        envelope.reply.fit.metrics[f"{number:x}"].int_value = 1
    return envelope.SerializeToString()


UNREADABLE = {
    "bytes that are no message of flmq": b"\xff" * 50,
    "bytes that are no message": GOOD[:-1],
    "states no schema version": b"",
    "schema version 99, this flmq speaks 1": _version(99),
    "no message of a kind known here": _nothing(),
}


def _send_unreadable(peer: Peer, address: Address) -> list[str]:
    """Send all that cannot be read; the reasons come back, in order."""
    reasons = []
    for reason, content in UNREADABLE.items():
        peer.raw(address, content)
        reasons.append(reason)
    peer.raw(address, b"x" * 10_000_000)
    reasons.append("10000000 bytes are more than the")
    peer.raw(address, _many_metrics(60_000))
    reasons.append("holds more than 100000 values")
    peer.raw(address, b"x", {"x-flmq-blob": "name", "x-flmq-blob-index": "first"})
    reasons.append("without its blob's name or its index")
    peer.raw(address, b"x" * 5_000_000, blob_chunk_headers("name", 0))
    reasons.append("5000000 bytes")
    return reasons


def test_what_cannot_be_read_goes_to_the_dead_letters(federation: Federation) -> None:
    federation.serve("a", "b")
    peer = federation.peer("hand")
    server = federation.run(fed_avg(3), rounds=2)
    server.watch.wait_for(ClientOutcome, count=2)  # a and b; the round waits for hand
    addresses = {
        client_queue("a"): Address(TASKS, task_key("main", "a")),
        replies_queue(JOB): Address(REPLIES, reply_key("main", "b", JOB)),
        presence_queue(JOB): Address(PRESENCE, presence_key("main", "b")),
    }
    for queue, address in addresses.items():
        reasons = _send_unreadable(peer, address)
        incomings = federation.dead(len(reasons))
        for reason, incoming in zip(reasons, incomings, strict=True):
            assert reason in str(incoming.message.headers["x-flmq-reason"])
            assert incoming.message.headers["x-flmq-queue"] == queue
            assert incoming.message.headers["x-flmq-routing-key"] == address.routing_key
    for _ in range(2):
        peer.reply(peer.task())
    server.history()
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=3, accepted=3)] * 2


def test_odd_properties_end_nobody_and_go_to_the_dead_letters(federation: Federation) -> None:
    """Also where pika cannot read them, which ended one connection after the other."""
    federation.serve("a")
    peer = federation.peer("hand")
    server = federation.run(fed_avg(2), rounds=2)
    server.watch.wait_for(ClientOutcome)
    for address in (
        Address(TASKS, task_key("main", "a")),
        Address(REPLIES, reply_key("main", "b", JOB)),
        Address(UPLOADS, reply_key("main", "b", JOB)),
        Address(PRESENCE, presence_key("main", "b")),
    ):
        for odd in ODD.values():
            federation.rig.inject(address, b"no envelope", odd)
        for odd, incoming in zip(ODD.values(), federation.dead(len(ODD)), strict=True):
            reason = str(incoming.message.headers["x-flmq-reason"])
            assert (odd.unreadable or "no message of flmq") in reason
            assert incoming.message.body == b"no envelope"
    for _ in range(2):
        peer.reply(peer.task())
    server.history()
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=2, accepted=2)] * 2


def _changed(body: Body, field: str, value: float) -> bytes:
    """A message that flmq would not send."""
    envelope = pb.Envelope.FromString(encode(body))
    setattr(getattr(envelope, field.split(".")[0]), field.split(".")[1], value)
    return envelope.SerializeToString()


def test_a_control_message_out_of_bounds_goes_to_the_dead_letters_and_stops_nobody(
    federation: Federation,
) -> None:
    federation.serve("a")
    peer = federation.peer("hand")
    server = federation.run(fed_avg(2), rounds=2)
    server.watch.wait_for(ClientOutcome, count=1)
    to_a, hello = Address(TASKS, task_key("main", "a")), peer.presence()
    for content, address, reason in [
        (_changed(RollCall(JOB, 1, 1.0), "roll_call.heartbeat_seconds", 1e-300), to_a, "heartbeat"),
        (_changed(RollCall(JOB, 1, 1.0), "roll_call.epoch", 2**64 - 1), to_a, "epoch"),
        (_changed(JobEnded(JOB, 1), "job_ended.epoch", 2**64 - 1), to_a, "epoch"),
        (
            _changed(hello, "presence.heartbeat_seconds", 1e300),
            Address(PRESENCE, presence_key("main", "hand")),
            "heartbeat",
        ),
    ]:
        peer.raw(address, content)
        (incoming,) = federation.dead(1)
        assert reason in str(incoming.message.headers["x-flmq-reason"])
    # And one within bounds, of the far future: it makes nobody deaf to the true server.
    peer.send(to_a, RollCall(JOB, MAX_EPOCH, 30.0))
    for _ in range(2):
        peer.reply(peer.task())
    server.history()
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=2, accepted=2)] * 2


def test_a_message_in_the_wrong_queue_goes_to_the_dead_letters(federation: Federation) -> None:
    federation.serve("a")
    peer = federation.peer("hand")
    server = federation.run(fed_avg(2))
    task = peer.task()
    # A task of hand's in a's queue; a reply in a client's queue; a roll call among replies.
    peer.send(Address(TASKS, task_key("main", "a")), task)
    (incoming,) = federation.dead(1)
    assert (
        incoming.message.headers["x-flmq-reason"] == "task of client hand in another client's queue"
    )
    address = peer.reply_address()
    peer.send(address, RollCall(JOB, 1, 1.0))
    (incoming,) = federation.dead(1)
    assert incoming.message.headers["x-flmq-reason"] == "a server takes no RollCall"
    reply = peer.reply(task)
    peer.send(Address(TASKS, task_key("main", "a")), reply)
    (incoming,) = federation.dead(1)
    assert incoming.message.headers["x-flmq-reason"] == "a worker takes no Reply"
    server.history()
    assert server.watch.words() == {"a": [Outcome.ACCEPTED], "hand": [Outcome.ACCEPTED]}
