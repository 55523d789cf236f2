"""Protected envelopes: what opens, what is refused and dead-lettered, and what is said once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from flmq.e2e.errors import Forged, NotProtected
from flmq.e2e.keys import Identity
from flmq.e2e.letters import Heading
from flmq.e2e.names import EVERYBODY, SERVER
from flmq.messaging import Inbox, Incoming, Opened, Sender
from flmq.messaging.sealed import open_body, seal_body
from flmq.testing import MemoryBroker, MemoryTransport
from flmq.transport import (
    TASKS,
    Address,
    Delivery,
    Message,
    client_queue,
    client_topology,
    federation_topology,
    task_key,
)
from flmq.wire import Body, JobEnded, Presence, PresenceKind, Sealed, Task, decode, encode, refer
from flmq.wire.envelopes import Companion
from tests.messaging.test_messaging import large
from tests.transport.rigs import PATIENCE

SERVER_KEYS = Identity("hospital", b"\1" * 32, b"\2" * 32)
ALICE = Identity("a", b"\3" * 32, b"\4" * 32)
TASK = replace(large(), run="r1")
HEADING = Heading("Task", SERVER, "a", "job", "r1")
ADDRESS = Address(TASKS, task_key("main", "a"))
ENDED = JobEnded("job", 1, "done", "r1")


def delivered(data: bytes, message_id: str = "") -> tuple[Sealed, Delivery]:
    sealed = decode(data)
    assert isinstance(sealed, Sealed)
    return sealed, Delivery(Message(data, message_id=message_id), "q", redelivered=False, tag=None)


def closed(body: Body, heading: Heading) -> bytes:
    sealer = ALICE.public.sealer if heading.kind == "Task" else None
    return seal_body(body, heading, SERVER_KEYS.signer, sealer, b"manifest")


def opened(data: bytes, message_id: str = "") -> Opened:
    return open_body(*delivered(data, message_id), SERVER_KEYS.public.verifier, ALICE.opener)


def test_what_is_sealed_is_opened() -> None:
    data = closed(TASK, HEADING)
    assert opened(data) == (TASK, encode(TASK))
    assert delivered(data)[0].manifest == b"manifest"
    assert b"x" * 99 in encode(TASK)
    assert b"x" * 99 not in data


@pytest.mark.parametrize(
    ("body", "heading"),
    [
        (ENDED, HEADING),
        (TASK, replace(HEADING, recipient="b")),
        (TASK, replace(HEADING, job="other")),
        (TASK, replace(HEADING, run="r2")),
        (TASK, replace(HEADING, sender="a", recipient=SERVER, job="other")),
        (ENDED, Heading("JobEnded", SERVER, EVERYBODY, "job", "r0")),
        (
            Presence(
                PresenceKind.HELLO, "a", "main", "i", others=(Companion("b"),), heartbeat_seconds=1
            ),
            Heading("Presence", "a", EVERYBODY),
        ),
    ],
    ids=["kind", "client", "job", "run", "job of a client", "run of what is signed", "others"],
)
def test_a_message_that_says_otherwise_than_its_heading_is_refused(
    body: Body, heading: Heading
) -> None:
    with pytest.raises(Forged):
        opened(closed(body, heading))


@pytest.mark.parametrize("field", ["kind", "sender", "recipient", "job", "run", "letter"])
def test_a_field_that_was_changed_on_the_way_is_noticed(field: str) -> None:
    sealed, delivery = delivered(closed(TASK, HEADING))
    other: dict[str, Any] = {"kind": "Reply", "letter": sealed.letter[:-1] + b"\0"}
    changed = replace(sealed, **{field: other.get(field, "other")})
    with pytest.raises(Forged):
        open_body(changed, delivery, SERVER_KEYS.public.verifier, ALICE.opener)


def test_a_sealed_message_cannot_be_passed_off_as_a_signed_one() -> None:
    sealed, delivery = delivered(closed(TASK, HEADING))
    with pytest.raises(Forged):
        open_body(
            replace(sealed, kind="RollCall"),
            delivery,
            SERVER_KEYS.public.verifier,
            ALICE.opener,
        )
    with pytest.raises(Forged):
        open_body(sealed, delivery, SERVER_KEYS.public.verifier, None)


def test_the_ids_of_the_amqp_message_are_signed() -> None:
    data = closed(TASK, replace(HEADING, message_id="greeting-1"))
    assert opened(data, "greeting-1").body == TASK
    for other in ("", "greeting-2"):
        with pytest.raises(Forged):
            opened(data, other)


class End:
    """A protection of one end, as a test needs it."""

    chunk_overhead = 16

    def protect(
        self, body: Body, *, recipient: str = "", message_id: str = "", correlation_id: str = ""
    ) -> bytes:
        kind = type(body).__name__
        to = "a" if isinstance(body, Task) else EVERYBODY
        heading = Heading(kind, SERVER, to, "job", "r1", message_id, correlation_id)
        return closed(body, heading)

    def open(self, body: Body, delivery: Delivery) -> Opened:
        if not isinstance(body, Sealed):
            raise NotProtected("job", "job 'job' signs nothing")
        return open_body(body, delivery, SERVER_KEYS.public.verifier, ALICE.opener)


class Ends:
    """A sender and two inboxes on one queue: one with keys, one without."""

    def __init__(self) -> None:
        self.transport = MemoryTransport(MemoryBroker())
        self.transport.declare(federation_topology() + client_topology("a"))
        publisher = self.transport.publisher()
        self.plain, self.secure = Sender(publisher), Sender(publisher, protection=End())
        self.reasons: list[str] = []

    def inbox(self, *, secure: bool) -> Inbox:
        consumer = self.transport.consumer([client_queue("a")], prefetch=100)
        if secure:
            return Inbox(consumer, self.plain, on_dead=self.reasons.append, protection=End())
        return Inbox(consumer, self.plain, on_dead=self.reasons.append)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.transport.close()


def received(inbox: Inbox) -> Incoming:
    for _ in range(10):
        if (incoming := inbox.receive(PATIENCE)) is not None:
            return incoming
    raise AssertionError("nothing came that can be used")


def test_a_message_goes_through_and_its_bytes_are_the_inner_ones(ends: Ends) -> None:
    sent = ends.secure.send(ADDRESS, TASK, message_id="t")
    incoming = received(ends.inbox(secure=True))
    assert incoming.body == TASK
    assert incoming.encoded == encode(TASK)
    assert incoming.bytes == sent.bytes > len(encode(TASK))


def test_chunks_are_encrypted_by_their_reference(ends: Ends) -> None:
    task = large()
    parameters = task.ins.parameters  # type: ignore[attr-defined]
    ref = replace(refer(parameters, chunk_bytes=100_000), key=b"k" * 32)
    ends.secure.send_blob(ADDRESS, ref, ref.digest, parameters.tensors)
    incoming = received(ends.inbox(secure=True))
    assert b"xxxxxxxx" not in bytes(incoming.delivery.message.body)
    assert incoming.bytes == 100_016


def test_a_message_of_an_end_without_keys_is_said_once_and_dropped(
    ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        ends.plain.send(ADDRESS, ENDED)
    ends.secure.send(ADDRESS, ENDED)
    inbox = ends.inbox(secure=True)
    with caplog.at_level(logging.WARNING, "flmq"):
        assert received(inbox).body == ENDED
    assert inbox.mismatched == 3
    assert ends.reasons == ["job 'job' signs nothing"]
    assert [record.message for record in caplog.records] == ends.reasons


def test_an_end_without_keys_is_told_what_it_lacks(ends: Ends) -> None:
    for _ in range(3):
        ends.secure.send(ADDRESS, ENDED)
    ends.plain.send(ADDRESS, ENDED)
    inbox = ends.inbox(secure=False)
    assert received(inbox).body == ENDED
    assert inbox.mismatched == 3
    (said,) = ends.reasons
    assert "--e2e, --key and --server-key" in said


def test_what_is_forged_is_a_dead_letter(ends: Ends) -> None:
    good = End().protect(ENDED)
    changes: list[Callable[[Sealed], Sealed]] = [
        lambda sealed: replace(sealed, letter=sealed.letter[:-1]),
        lambda sealed: replace(sealed, job="other"),
    ]
    for change in changes:
        sealed = decode(good)
        assert isinstance(sealed, Sealed)
        ends.plain.send(ADDRESS, change(sealed))
    ends.secure.send(ADDRESS, ENDED)
    inbox = ends.inbox(secure=True)
    assert received(inbox).body == ENDED
    assert len(ends.reasons) == 2
    assert inbox.mismatched == 0
