"""What a protected job's server says and takes, with a client that is played by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flmq.client.secure.keys import ClientKeys
from flmq.client.secure.protection import ClientProtection
from flmq.common.phase import Phase
from flmq.common.typing import GetParametersIns
from flmq.e2e.errors import Forged, NotProtected, Outdated, UnknownKey
from flmq.e2e.keys import Identity
from flmq.e2e.letters import Heading
from flmq.e2e.manifest import LIFETIME, Manifest
from flmq.e2e.names import EVERYBODY, SERVER
from flmq.messaging.protection import Opened
from flmq.messaging.sealed import is_sealed, open_body, seal_body
from flmq.messaging.speakers import Speakers
from flmq.server.job_identity import Job
from flmq.server.secure.keys import session_of
from flmq.server.secure.protection import JobProtection
from flmq.transport import Delivery, Message, client_queue
from flmq.wire import (
    Body,
    Companion,
    Failure,
    FailureKind,
    JobEnded,
    ModelRequest,
    Presence,
    PresenceKind,
    Reply,
    RollCall,
    Sealed,
    Task,
    decode,
    encode,
)
from tests.security.federations import identity, job_keys

NOW = 1.7e9


def job(name: str = "job") -> Job:
    return Job.create(name, lambda: 10**18)


def delivery(data: bytes, **ids: str) -> Delivery:
    return Delivery(Message(data, **ids), "queue", redelivered=False, tag=0)  # type: ignore[arg-type]


def reply(of: Job, client_id: str = "a") -> Reply:
    return Reply(
        "task", of.name, 1, Phase.FIT, client_id, of.epoch, b"n" * 16, 0.0,
        Failure(FailureKind.REFUSED), run=of.run_id,
    )  # fmt: skip


def hello(client_id: str = "a", **fields: Any) -> Presence:
    return Presence(PresenceKind.HELLO, client_id, "main", "process", **fields)


def said(
    by: Identity, body: Body, of: Job | None = None, *, sender: str | None = None, **ids: str
) -> bytes:
    """What a client sends: a reply or a request to the server of a job, presence to all."""
    kind, name = type(body).__name__, by.name if sender is None else sender
    if of is None:
        return seal_body(body, Heading(kind, name, EVERYBODY, **ids), by.signer)
    session = session_of(of)
    sealer = session.opener.public_key() if is_sealed(kind) else None
    return seal_body(
        body, Heading(kind, name, SERVER, of.name, of.run_id, **ids), by.signer, sealer
    )


class Strangers:
    """Remembers who was refused, and why."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, presence: Presence, why: str, do: str) -> None:
        assert do
        self.seen.append((presence.client_id, why))


def server(of: Job) -> tuple[JobProtection, Strangers]:
    protection, strangers = JobProtection(of, job_keys(), lambda: NOW), Strangers()
    protection.on_stranger = strangers
    return protection, strangers


def opened(protection: JobProtection, data: bytes, **ids: str) -> Opened:
    return protection.open(decode(data), delivery(data, **ids))


def test_what_a_trusted_client_says_is_taken() -> None:
    of = job()
    protection, strangers = server(of)
    for body, about in (
        (reply(of), of),
        (ModelRequest(of.name, "a", "0" * 64), of),
        (hello(), None),
    ):
        data = said(identity("a"), body, about, correlation_id="greeting")
        found = opened(protection, data, correlation_id="greeting")
        assert found.body == body
        assert decode(found.encoded) == body
    assert strangers.seen == []


def test_a_reply_is_unreadable_to_others_and_presence_is_not() -> None:
    of = job()
    assert b"n" * 16 not in said(identity("a"), reply(of), of)
    assert encode(hello()) in said(identity("a"), hello())


@pytest.mark.parametrize(
    "change",
    [
        lambda sealed: replace(sealed, sender="b"),
        lambda sealed: replace(sealed, job="other"),
        lambda sealed: replace(sealed, run="other"),
        lambda sealed: replace(sealed, recipient=EVERYBODY),
        lambda sealed: replace(sealed, kind="ModelRequest"),
        lambda sealed: replace(sealed, kind="Task"),
        lambda sealed: replace(sealed, kind="Sealed"),
        lambda sealed: replace(sealed, letter=sealed.letter[:-1]),
        lambda sealed: replace(sealed, letter=sealed.letter[:40]),
        lambda sealed: replace(sealed, letter=sealed.letter + b"\0"),
        lambda sealed: replace(sealed, letter=bytes([sealed.letter[0] ^ 1]) + sealed.letter[1:]),
    ],
)
def test_a_reply_that_was_changed_is_refused(change: Any) -> None:
    of = job()
    protection, _ = server(of)
    sealed = decode(said(identity("a"), reply(of), of))
    with pytest.raises(Forged):
        protection.open(change(sealed), delivery(b""))


def test_ids_of_the_amqp_message_are_part_of_what_is_signed() -> None:
    of = job()
    protection, _ = server(of)
    data = said(identity("a"), hello(), correlation_id="greeting of another")
    with pytest.raises(Forged):
        opened(protection, data, correlation_id="greeting")


def test_nobody_speaks_for_another() -> None:
    of = job()
    protection, strangers = server(of)
    for body, about in ((reply(of, "b"), of), (hello("b"), None)):
        with pytest.raises(Forged):
            opened(protection, said(identity("a"), body, about))
        with pytest.raises(Forged):
            opened(protection, said(identity("a"), body, about, sender="b"))
    with pytest.raises(Forged, match="other clients"):
        opened(protection, said(identity("a"), hello("a", others=(Companion("b"),))))
    assert {name for name, _ in strangers.seen} <= {"a", "b"}


def test_what_was_made_for_another_run_or_job_is_refused() -> None:
    of, other, again = job(), job("other"), job()
    protection, _ = server(of)
    for elsewhere in (other, again):
        with pytest.raises(Forged, match="somewhere else"):
            opened(protection, said(identity("a"), reply(elsewhere), elsewhere))


def test_plain_messages_are_refused_by_name_and_their_clients_are_told() -> None:
    of = job()
    protection, strangers = server(of)
    with pytest.raises(NotProtected, match="client 'a' sends a Reply without keys"):
        opened(protection, encode(reply(of)))
    with pytest.raises(NotProtected, match="--e2e, --key and --server-key"):
        opened(protection, encode(hello("a", others=(Companion("b"),))))
    assert strangers.seen == [("a", "speak without keys"), ("b", "speak without keys")]


def test_unknown_clients_and_other_keys_are_refused_by_name() -> None:
    of = job()
    protection, strangers = server(of)
    with pytest.raises(UnknownKey, match=r"mallory\.pub where --trust points"):
        opened(protection, said(identity("mallory"), hello("mallory")))
    renewed = Identity.new("a")
    with pytest.raises(Forged):
        opened(protection, said(renewed, hello("a")))
    assert strangers.seen == [
        ("mallory", "have keys that this server does not trust"),
        ("a", "sign with another key than this server has for their names"),
    ]


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "another key"])
def test_what_another_user_says_in_a_clients_name_has_nobody_refused(sealed: bool) -> None:
    """Where the broker says who speaks, a client cannot have the server refuse another."""
    of = job()
    protection, strangers = server(of)
    protection.speakers = Speakers(required=True)
    body = hello("a")
    data = said(Identity.new("a"), body) if sealed else encode(body)
    sent = Delivery(
        Message(data, user_id="mallory"), "queue", redelivered=False, tag=0,
        routing_key="main.mallory",
    )  # fmt: skip
    with pytest.raises(Forged, match="a, sent by mallory"):
        protection.open(decode(data), sent)
    assert strangers.seen == []


def test_a_jobs_secret_is_not_shown() -> None:
    of = job()
    assert repr(of.secret) not in repr(of)


def test_a_clock_that_was_ahead_and_is_set_right_needs_no_other_server() -> None:
    of, now = job(), [NOW + 3600]
    protection = JobProtection(of, job_keys(), lambda: now[0])
    now[0] = NOW
    sealed = decode(protection.protect(JobEnded(of.name, of.epoch, "", of.run_id)))
    assert isinstance(sealed, Sealed)
    Manifest.read(sealed.manifest, [identity("server").public]).check(NOW)


def test_a_run_whose_server_has_a_clock_behind_the_last_ones_is_heard_when_it_is_right() -> None:
    """Without a restart of clients or server: its first manifest passes for the older one."""
    now = [NOW]
    earlier, later = job(), job()
    client = ClientProtection(
        ClientKeys({"a": identity("a")}, (identity("server").public,)), lambda: now[0]
    )

    def hears(server: JobProtection, of: Job) -> Body:
        data = server.protect(RollCall(of.name, of.epoch, 1.0, of.run_id))
        sent = Delivery(
            Message(data), client_queue("a"), redelivered=False, tag=0, routing_key="main.a"
        )
        return client.open(decode(data), sent).body

    hears(JobProtection(earlier, job_keys(), lambda: now[0]), earlier)
    behind = [3600.0]
    server = JobProtection(later, job_keys(), lambda: now[0] - behind[0])
    with pytest.raises(Outdated, match="its server's clock is behind"):
        hears(server, later)
    now[0] += 60.0
    behind[0] = 0.0  # a person has set it right
    assert isinstance(hears(server, later), RollCall)
    with pytest.raises(Outdated):
        hears(JobProtection(earlier, job_keys(), lambda: NOW), earlier)


def test_a_task_is_sealed_to_its_client_and_a_roll_call_is_signed() -> None:
    of = job()
    protection, _ = server(of)
    task = Task("t", of.name, 1, Phase.GET_PARAMETERS, "a", of.epoch, b"n" * 16, object())
    task = replace(task, ins=GetParametersIns({}), run=of.run_id)
    sealed = decode(protection.protect(task, message_id="t"))
    assert isinstance(sealed, Sealed)
    manifest = Manifest.read(sealed.manifest, [identity("server").public])
    assert (manifest.job, manifest.run) == (of.name, of.run_id)
    carrier = delivery(b"", message_id="t")
    assert open_body(sealed, carrier, manifest.verifier, identity("a").opener).body == task
    with pytest.raises(Forged):
        open_body(sealed, carrier, manifest.verifier, identity("b").opener)
    for body, recipient in (
        (RollCall(of.name, of.epoch, 1.0, of.run_id), ""),
        (RollCall(of.name, of.epoch, 1.0, of.run_id), "mallory"),
        (JobEnded(of.name, of.epoch, "", of.run_id), ""),
    ):
        sealed = decode(protection.protect(body, recipient=recipient))
        assert isinstance(sealed, Sealed)
        assert sealed.recipient == (recipient or EVERYBODY)
        assert open_body(sealed, delivery(b""), manifest.verifier, None).body == body


def test_a_server_that_is_started_again_has_the_same_keys_and_signs_a_manifest_that_lasts() -> None:
    of, now = job(), [NOW]
    first = JobProtection(of, job_keys(), lambda: now[0])
    again = JobProtection(replace(of, epoch=of.epoch + 1), job_keys(), lambda: now[0])
    assert first.model_key("0" * 64, 5) == again.model_key("0" * 64, 5)
    assert first.model_key("0" * 64, 6) != again.model_key("0" * 64, 5)
    assert session_of(of) != session_of(job())
    body = JobEnded(of.name, of.epoch, "", of.run_id)
    for _ in range(5):
        now[0] += LIFETIME * 0.4
        sealed = decode(first.protect(body))
        assert isinstance(sealed, Sealed)
        Manifest.read(sealed.manifest, [identity("server").public]).check(now[0])
