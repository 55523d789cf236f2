"""A client's protection: what it says under which keys, and whose word it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flmq.client.secure.keys import ClientKeys
from flmq.client.secure.protection import ClientProtection
from flmq.common import FitIns, FitRes, Parameters
from flmq.common.phase import Phase
from flmq.common.typing import Code, Status
from flmq.e2e.errors import (
    Forged,
    ManifestExpired,
    NoManifest,
    NotProtected,
    OtherRoster,
    Outdated,
    UnknownKey,
)
from flmq.e2e.keys import Identity, roster_digest
from flmq.e2e.letters import Heading
from flmq.e2e.manifest import LIFETIME, SKEW, Manifest, Session
from flmq.e2e.names import EVERYBODY, SERVER
from flmq.messaging.sealed import is_sealed, open_body, seal_body
from flmq.transport import Delivery, Message, client_queue
from flmq.wire import (
    Begun,
    Body,
    JobEnded,
    ModelRequest,
    Presence,
    PresenceKind,
    Receipt,
    ReceiptOutcome,
    Reply,
    RollCall,
    Sealed,
    Task,
    decode,
    encode,
    refer,
)

HOSPITAL = Identity("hospital", b"\1" * 32, b"\2" * 32)
ALICE = Identity("alice.example.org", b"\3" * 32, b"\4" * 32)
BOB = Identity("bob", b"\5" * 32, b"\6" * 32)
ROSTER = roster_digest([ALICE.public, BOB.public])
NOW = 1_800_000_000.0

TASK = Task(
    "t1", "job", 1, Phase.FIT, ALICE.name, 1, b"n", FitIns(Parameters([], "x"), {}), run="r1"
)
REPLY = Reply(
    "t1",
    "job",
    1,
    Phase.FIT,
    ALICE.name,
    1,
    b"n",
    0.5,
    FitRes(Status(Code.OK, ""), Parameters([], "x"), 3, {}),
    run="r1",
)
ROLL_CALL = RollCall("job", 1, 30.0, "r1")
ENDED = JobEnded("job", 1, "done", "r1")
RECEIPT = Receipt("t1", "job", 1, Phase.FIT, ALICE.name, ReceiptOutcome.ACCEPTED)
HELLO = Presence(PresenceKind.HELLO, ALICE.name, "main", "i1", heartbeat_seconds=30)


class Server:
    """A job's server, as far as it writes letters."""

    def __init__(
        self, run: str = "r1", issued: float = NOW, authority: Identity = HOSPITAL
    ) -> None:
        self.session = Session.new()
        self.run = run
        self.manifest = Manifest.issue(authority, "job", run, self.session, ROSTER, issued)

    def says(self, body: Body, to: Identity | None = ALICE, message_id: str = "") -> bytes:
        kind = type(body).__name__
        recipient = EVERYBODY if to is None else to.name
        heading = Heading(kind, SERVER, recipient, "job", self.run, message_id)
        sealer = to.public.sealer if to is not None and is_sealed(kind) else None
        return seal_body(body, heading, self.session.signer, sealer, self.manifest.encoded)

    def hears(self, data: bytes, sender: Identity = ALICE) -> Body:
        sealed = decode(data)
        assert isinstance(sealed, Sealed)
        assert sealed.sender == sender.name
        delivery = delivered(data)
        return open_body(sealed, delivery, sender.public.verifier, self.session.opener).body


def delivered(data: bytes, client: Identity = ALICE, message_id: str = "") -> Delivery:
    message = Message(data, message_id=message_id)
    return Delivery(message, client_queue(client.name), redelivered=False, tag=None)


class Client:
    """Alice and Bob in one process, and its clock."""

    def __init__(self, roster: bytes | None = None) -> None:
        self.now = NOW
        identities = {one.name: one for one in (ALICE, BOB)}
        keys = ClientKeys(identities, (HOSPITAL.public,), roster)
        self.protection = ClientProtection(keys, lambda: self.now)

    def hears(self, data: bytes, client: Identity = ALICE, message_id: str = "") -> Body:
        return self.protection.open(decode(data), delivered(data, client, message_id)).body


@pytest.mark.parametrize(
    ("body", "to"),
    [(TASK, ALICE), (RECEIPT, ALICE), (ROLL_CALL, None), (ROLL_CALL, ALICE), (ENDED, None)],
    ids=["task", "receipt", "roll call", "greeting", "job ended"],
)
def test_what_a_pinned_server_says_is_taken(body: Body, to: Identity | None) -> None:
    assert Client().hears(Server().says(body, to)) == body


@pytest.mark.parametrize("body", [TASK, RECEIPT, ROLL_CALL, ENDED], ids=lambda b: type(b).__name__)
def test_nothing_plain_is_taken(body: Body) -> None:
    with pytest.raises(NotProtected, match=r"'job' signs nothing.*--e2e") as caught:
        Client().hears(encode(body))
    assert caught.value.subject == "job"


@pytest.mark.parametrize("body", [TASK, RECEIPT, ROLL_CALL, ENDED], ids=lambda b: type(b).__name__)
def test_a_server_that_is_not_pinned_is_not_believed(body: Body) -> None:
    stranger = Server(authority=Identity.new("stranger"))
    with pytest.raises(UnknownKey, match="--server-key"):
        Client().hears(stranger.says(body))
    with pytest.raises(Forged):
        Client().hears(Server(authority=Identity.new("hospital")).says(body))


def test_the_manifest_of_another_server_helps_nobody() -> None:
    """Who copies a manifest has not the keys that it names."""
    stranger, server = Server(authority=Identity.new("stranger")), Server()
    stranger.manifest = server.manifest
    for body in (TASK, ROLL_CALL):
        with pytest.raises(Forged):
            Client().hears(stranger.says(body))


def test_a_task_is_only_taken_from_the_queue_of_its_client() -> None:
    data = Server().says(TASK)
    with pytest.raises(Forged, match="queue of client 'bob'"):
        Client().hears(data, BOB)
    with pytest.raises(Forged):
        Client().hears(Server().says(replace(TASK, client_id="bob"), BOB), ALICE)


def test_a_greeting_is_only_taken_by_whom_it_greets() -> None:
    """One that refuses alice would otherwise send bob away too."""
    data = Server().says(replace(ROLL_CALL, refused="are not wanted"), ALICE, "g1")
    assert Client().hears(data, ALICE, "g1")
    with pytest.raises(Forged):
        Client().hears(data, BOB, "g1")
    with pytest.raises(Forged):
        Client().hears(data, ALICE, "g2")


def test_a_client_cannot_speak_as_the_server() -> None:
    heading = Heading("RollCall", BOB.name, ALICE.name, "job", "r1")
    with pytest.raises(Forged):
        Client().hears(seal_body(ROLL_CALL, heading, BOB.signer))


def test_manifests_have_their_time() -> None:
    client, server = Client(), Server()
    data = server.says(TASK)
    client.now = NOW + LIFETIME + SKEW + 1
    with pytest.raises(ManifestExpired, match="started again"):
        client.hears(data)
    client.now = NOW - SKEW - 1
    with pytest.raises(ManifestExpired, match="clocks"):
        client.hears(data)
    client.now = NOW
    assert client.hears(data) == TASK
    client.now = NOW + LIFETIME + SKEW + 1
    with pytest.raises(ManifestExpired):  # and again, though its signature was checked before
        client.hears(data)


def test_a_job_for_other_clients_is_refused_where_they_are_pinned() -> None:
    assert Client(ROSTER).hears(Server().says(TASK)) == TASK
    with pytest.raises(OtherRoster, match="--trust"):
        Client(roster_digest([ALICE.public])).hears(Server().says(TASK))


def test_messages_of_an_earlier_run_are_dropped_once_a_later_one_is_heard() -> None:
    client, earlier, later = Client(), Server("r1"), Server("r2", NOW + 1)
    assert client.hears(earlier.says(ROLL_CALL)) == ROLL_CALL
    anew = replace(ROLL_CALL, run="r2")
    assert client.hears(later.says(anew)) == anew
    for body in (ROLL_CALL, TASK, RECEIPT):
        with pytest.raises(Outdated, match="'r2' was begun after it"):
            client.hears(earlier.says(body))
    resumed = Server("r1", NOW + 2)  # a run that is gone on with signs a new manifest
    assert client.hears(resumed.says(ROLL_CALL)) == ROLL_CALL


def test_a_reply_is_sealed_to_the_run_that_asked() -> None:
    client, server = Client(), Server()
    client.hears(server.says(TASK))
    data = client.protection.protect(REPLY)
    assert server.hears(data) == REPLY
    with pytest.raises(Forged):
        Server().hears(data)
    with pytest.raises(NoManifest):
        client.protection.protect(replace(REPLY, run="r0"))


def test_before_the_server_is_heard_there_is_no_key_to_seal_to() -> None:
    client = Client()
    for body in (REPLY, ModelRequest("job", ALICE.name, "0" * 64)):
        with pytest.raises(NoManifest, match="not heard yet"):
            client.protection.protect(body)
    client.hears(Server().says(ROLL_CALL, None))
    assert client.protection.protect(REPLY)


def test_a_manifest_counts_only_with_a_message_of_its_server() -> None:
    client, server = Client(), Server()
    sealed = decode(server.says(ROLL_CALL))
    assert isinstance(sealed, Sealed)
    with pytest.raises(Forged):
        client.hears(encode(replace(sealed, letter=b"x" * 99)))
    with pytest.raises(NoManifest):
        client.protection.protect(REPLY)


def test_presence_is_signed_and_anybody_may_read_it() -> None:
    data = Client().protection.protect(HELLO, correlation_id="g1")
    sealed = decode(data)
    assert isinstance(sealed, Sealed)
    assert sealed.recipient == EVERYBODY
    assert encode(HELLO) in data
    message = Message(data, correlation_id="g1")
    delivery = Delivery(message, "q", redelivered=False, tag=None)
    assert open_body(sealed, delivery, ALICE.public.verifier, None).body == HELLO
    with pytest.raises(Forged):  # the greeting that it answers is signed with it
        open_body(sealed, delivered(data), ALICE.public.verifier, None)


def test_a_note_to_oneself_is_ones_own() -> None:
    client, note = Client(), Begun("t1", ALICE.name, "i1")
    data = client.protection.protect(note)
    assert client.hears(data) == note
    with pytest.raises(Forged):
        client.hears(data, BOB)
    heading = Heading("Begun", ALICE.name, ALICE.name)
    with pytest.raises(Forged):
        client.hears(seal_body(note, heading, BOB.signer))


def test_a_reply_that_is_sent_again_has_the_same_content_key() -> None:
    """So chunks that a killed process sent fit those of the next."""
    ref = refer(Parameters([b"x" * 100], "x"))
    one, other = Client().protection, Client().protection
    assert one.reply_key(REPLY, ref) == other.reply_key(REPLY, ref)
    for reply in (
        replace(REPLY, task_id="t2"),
        replace(REPLY, run="r2"),
        replace(REPLY, client_id="bob"),
    ):
        assert one.reply_key(reply, ref) != one.reply_key(REPLY, ref)
    assert one.reply_key(REPLY, replace(ref, chunk_bytes=9)) != one.reply_key(REPLY, ref)


def test_many_manifests_are_not_all_kept() -> None:
    client = Client()
    for number in range(300):
        client.hears(Server(f"r{number}", NOW + number).says(replace(ROLL_CALL, run=f"r{number}")))
    assert len(client.protection._read) <= 256
    assert len(client.protection._newest) == 1
