"""Whom a doorkeeper greets, how often, and what it reports of hellos that it dropped."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from flmq.common import Scalar
from flmq.messaging import Sender
from flmq.observe.events import Note, RunEvent
from flmq.server import SimpleClientManager
from flmq.server.job_identity import Job
from flmq.server.presence import doorkeeper as doorkeeper_module
from flmq.server.presence.admission import Admission
from flmq.server.presence.doorkeeper import Doorkeeper
from flmq.server.presence.watcher import PresenceWatcher
from flmq.testing import ManualClock, MemoryBroker, MemoryTransport
from flmq.transport import Message, client_queue, client_topology, federation_topology
from flmq.wire import Companion, Presence, PresenceKind, RollCall, decode
from tests.server.proxies import IdleProxy


class _Door:
    """A doorkeeper, and the queues of some clients, which take its greetings."""

    def __init__(
        self,
        *clients: str,
        allowed: Collection[str] | None = None,
        required: Mapping[str, Scalar] | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.events: list[RunEvent] = []
        transport = MemoryTransport(MemoryBroker())
        transport.declare(federation_topology())
        for client_id in clients:
            transport.declare(client_topology(client_id))
        queues = [client_queue(client_id) for client_id in clients]
        self.consumer = transport.consumer(queues, prefetch=1000)
        self.publisher = transport.publisher()
        self.watcher = PresenceWatcher(
            SimpleClientManager(), IdleProxy, self.events.append, self.clock.now
        )
        self.doorkeeper = Doorkeeper(
            Job.create("job"),
            Sender(self.publisher),
            self.watcher,
            self.events.append,
            heartbeat=7.0,
            admission=Admission(allowed, required or {}),
            clock=self.clock.now,
        )
        self.doorkeeper.call_roll("main")
        self.greetings()

    def hello(
        self,
        client_id: str = "a",
        instance: str = "first",
        answers: str = "",
        kind: PresenceKind = PresenceKind.HELLO,
        properties: Mapping[str, Scalar] | None = None,
    ) -> None:
        presence = Presence(
            kind, client_id, "main", instance, properties or {}, heartbeat_seconds=30.0
        )
        self.doorkeeper.hear(presence, answers)
        while self.doorkeeper.greet():
            pass

    def greetings(self) -> list[Message]:
        """What has come to the clients' queues since the last call."""
        came = []
        while (delivery := self.consumer.receive(timeout=0.2)) is not None:
            self.consumer.ack(delivery)
            came.append(delivery.message)
        return came

    def notes(self) -> list[str]:
        self.doorkeeper.tick()
        return [event.text for event in self.events if isinstance(event, Note)]


def test_a_process_is_admitted_once_it_answers_its_own_greeting() -> None:
    door = _Door("a", "b")
    door.hello()
    (greeting,) = door.greetings()
    roll_call = decode(bytes(greeting.body))
    assert isinstance(roll_call, RollCall)
    assert (roll_call.job, roll_call.heartbeat_seconds) == ("job", 7.0)
    assert greeting.correlation_id == "first"
    door.hello("b", answers=greeting.message_id)
    door.hello("a", "second", answers=greeting.message_id)
    assert not door.watcher.is_online("a")
    assert not door.watcher.is_online("b")
    door.hello(answers=greeting.message_id)
    assert door.watcher.is_online("a")


def test_who_was_admitted_needs_no_further_greeting_until_its_queue_is_gone() -> None:
    door = _Door("a")
    door.hello()
    (greeting,) = door.greetings()
    door.hello(answers=greeting.message_id)
    door.clock.advance(3600.0)
    door.watcher.tick()
    assert not door.watcher.is_online("a")
    door.hello(kind=PresenceKind.HEARTBEAT)
    assert door.watcher.is_online("a")
    door.watcher.gone("a")
    door.hello(kind=PresenceKind.HEARTBEAT)
    assert not door.watcher.is_online("a")
    assert len(door.greetings()) == 1


def test_a_bye_of_a_stranger_is_not_answered() -> None:
    door = _Door("a")
    door.hello(kind=PresenceKind.BYE)
    assert door.greetings() == []
    assert not door.watcher.knows("a")


def test_a_process_is_greeted_once_within_five_seconds_and_eight_of_a_client() -> None:
    door = _Door("a", "b")
    for _ in range(3):
        for number in range(10):
            door.hello("a", f"process-{number}")
    door.hello("b")
    greeted = [greeting.correlation_id for greeting in door.greetings()]
    assert greeted == [*(f"process-{number}" for number in range(8)), "first"]
    door.clock.advance(5.0)
    door.hello("a", "process-9")
    door.hello("a", "process-9")
    assert [greeting.correlation_id for greeting in door.greetings()] == ["process-9"]


def test_who_is_refused_in_a_clients_name_does_not_keep_the_client_from_being_greeted() -> None:
    """Hellos that nobody believes, or that lack a property, in its name and its process's."""
    door = _Door("a", required={"gpu": True})
    for number in range(10):
        door.hello("a", f"invented-{number}")
        presence = Presence(PresenceKind.HELLO, "a", "main", f"unsigned-{number}")
        door.doorkeeper.refuse(presence, "speak without keys", "start each with --e2e")
    door.hello("a", "first")
    door.greetings()
    door.hello("a", "first", properties={"gpu": True})
    (greeting,) = door.greetings()
    assert greeting.correlation_id == "first"
    door.hello("a", "first", answers=greeting.message_id, properties={"gpu": True})
    assert door.watcher.is_online("a")


def test_greetings_are_counted_for_so_many_clients_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorkeeper_module, "_REMEMBERED", 2)
    door = _Door("a", "b", "c")
    for client_id in ("a", "b", "b", "c", "c", "a"):
        door.hello(client_id)
    assert len(door.greetings()) == 4, "a was forgotten for c, and greeted again"


def test_dropped_hellos_are_reported_by_reason_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    door = _Door("a", allowed=["a", *(f"ghost-{number}" for number in range(7))])
    for number in range(7):
        door.hello(f"ghost-{number}")
    door.hello("mallory")
    door.publisher.close()  # all is confirmed, or returned
    ghosts = ", ".join(f"ghost-{number}" for number in range(5)) + ", ..."
    first = [
        "1 hellos were dropped: their clients are not among those that are allowed (mallory)",
        f"7 hellos were dropped: their clients have no queue ({ghosts})",
    ]
    assert sorted(door.notes()) == first
    door.hello("mallory")
    door.clock.advance(59.0)
    assert len(door.notes()) == 2
    door.clock.advance(1.0)
    assert door.notes()[2:] == first[:1]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3


@pytest.mark.parametrize("properties", [{}, {"base": "other"}, {"base": True}, {"base": 1.0}])
def test_a_client_without_a_required_property_is_told(properties: dict[str, Scalar]) -> None:
    door = _Door("a", required={"base": 1})
    door.hello(properties=properties)
    (greeting,) = door.greetings()
    roll_call = decode(bytes(greeting.body))
    assert isinstance(roll_call, RollCall)
    assert roll_call.refused == "lack the property base=1, which this job requires"
    # Whatever it answers, it is refused, and greeted no more than others are.
    door.hello(answers=greeting.message_id, properties=properties)
    assert door.greetings() == []
    assert not door.watcher.is_online("a")
    (note,) = door.notes()
    assert "2 hellos were dropped: their clients lack the property base=1" in note


def test_a_client_with_the_required_property_is_admitted() -> None:
    door = _Door("a", required={"base": 1})
    door.hello(properties={"base": 1, "gpu": True})
    (greeting,) = door.greetings()
    door.hello(answers=greeting.message_id, properties={"base": 1})
    assert door.watcher.is_online("a")


def test_one_message_of_many_clients_has_a_few_greeted_before_the_next_is_heard() -> None:
    names = [f"c{number}" for number in range(100)]
    door = _Door(*names)
    first, *others = names
    several = Presence(
        PresenceKind.HELLO, first, "main", "first", others=tuple(map(Companion, others))
    )
    door.doorkeeper.hear(several, "")
    turns = 1
    while door.doorkeeper.greet():
        turns += 1
    assert turns == 7
    assert len(door.greetings()) == 100


def test_a_client_is_greeted_before_all_that_others_invent_by_the_thousand() -> None:
    door = _Door("a")
    for number in range(150):  # more than may wait
        invented = tuple(Companion(f"x{number}-{other}") for other in range(1000))
        flood = Presence(PresenceKind.HELLO, f"x{number}", "main", "m", others=invented)
        door.doorkeeper.hear(flood, "")
        door.doorkeeper.greet()
    assert len(door.doorkeeper._waiting) <= 100_001
    door.doorkeeper.hear(Presence(PresenceKind.HELLO, "a", "main", "first"), "")
    door.doorkeeper.greet()
    (greeting,) = door.greetings()
    door.doorkeeper.hear(Presence(PresenceKind.HELLO, "a", "main", "first"), greeting.message_id)
    assert door.watcher.is_online("a")
