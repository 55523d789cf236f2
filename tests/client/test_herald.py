"""What a process says of its clients, and in how many messages."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from flmq.client.serving.herald import Herald
from flmq.common.typing import Scalar
from flmq.transport import Address, PublishOutcome
from flmq.wire import Presence, PresenceKind, decode, encode


class Heard:
    """A sender that keeps what it is given."""

    def __init__(self) -> None:
        self.said: list[tuple[Presence, str]] = []
        self.outcomes: list[Future[PublishOutcome]] = []

    def send(self, _: Address, body: Presence, *, correlation_id: str = "", **__: object) -> Any:
        decoded = decode(encode(body))
        assert isinstance(decoded, Presence)
        self.said.append((decoded, correlation_id))
        self.outcomes.append(Future())
        return self

    @property
    def outcome(self) -> Future[PublishOutcome]:
        return self.outcomes[-1]

    def clients(self) -> list[str]:
        """Return of whom something was said, and forget it."""
        said, self.said = self.said, []
        return [one.client_id for body, greeting in said for one, _ in body.each(greeting)]


def herald(count: int, **properties: Scalar) -> tuple[Herald, Heard, list[float]]:
    now = [1e9]
    clients = {f"c{number}": {"partition-id": number, **properties} for number in range(count)}
    made, heard = Herald(clients, "main", 30.0, lambda: now[0]), Heard()
    made.speak_through(heard)  # type: ignore[arg-type]
    return made, heard, now


def test_hundreds_are_in_one_message_with_their_properties() -> None:
    made, heard, _ = herald(1200)
    made.say_all(PresenceKind.HELLO)
    assert len(heard.said) == 3
    body, _ = heard.said[0]
    assert [one.properties for one, _ in body.each("")][:3] == [
        {"partition-id": i} for i in (0, 1, 2)
    ]
    assert heard.clients() == [f"c{number}" for number in range(1200)]


def test_a_heartbeat_has_no_properties_and_waits_for_the_last_one() -> None:
    made, heard, _ = herald(3)
    made.say_all(PresenceKind.HELLO)
    made.say_all(PresenceKind.HEARTBEAT)
    assert len(heard.said) == 1
    heard.outcomes[0].set_result(PublishOutcome.CONFIRMED)
    made.say_all(PresenceKind.HEARTBEAT)
    body, _ = heard.said[1]
    assert [(one.properties, one.bare) for one, _ in body.each("")] == [
        ({"partition-id": 0}, False),
        ({}, True),
        ({}, True),
    ]


def test_large_properties_take_more_messages() -> None:
    made, heard, _ = herald(10, notes="x" * 50_000)
    made.say_all(PresenceKind.HELLO)
    assert len(heard.said) == 5


def test_answers_wait_for_others_but_not_long() -> None:
    made, heard, now = herald(3)
    made.answer("c0", "g0")
    made.answer("c2", "g2")
    assert made.has_answers
    assert not made.is_due()
    now[0] += 0.3
    assert made.is_due()
    made.flush()
    [(body, greeting)] = heard.said
    assert [(one.client_id, answered) for one, answered in body.each(greeting)] == [
        ("c0", "g0"),
        ("c2", "g2"),
    ]
    made.flush()
    assert len(heard.said) == 1


def test_one_client_alone_answers_at_once() -> None:
    made, heard, _ = herald(1)
    made.answer("c0", "g")
    [(body, greeting)] = heard.said
    assert (body.others, greeting) == ((), "g")


def test_every_client_speaks_for_itself_while_there_is_an_older_server() -> None:
    made, heard, _ = herald(4)
    made.say_all(PresenceKind.HELLO)
    assert len(heard.said) == 1
    heard.clients()
    made.hear("new", hears_others=True)
    assert heard.said == []
    made.hear("old", hears_others=False)
    made.hear("old", hears_others=False)
    assert len(heard.said) == 4
    assert heard.clients() == ["c0", "c1", "c2", "c3"]
    made.say_all(PresenceKind.BYE)
    assert len(heard.said) == 4
    heard.clients()
    made.forget("old")
    made.say_all(PresenceKind.BYE)
    assert len(heard.said) == 1


def test_each_message_is_newer_than_the_one_before_whatever_the_clock_does() -> None:
    made, heard, now = herald(1)
    for _ in range(3):
        made.say_all(PresenceKind.HELLO)
        now[0] -= 5.0
    times = [body.sent_unix_ms for body, _ in heard.said]
    assert times == sorted(set(times))
