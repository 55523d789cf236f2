"""Who is let in: rounds ask clients that read their queue, and no ghosts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from flmq.client.options import WorkerOptions
from flmq.observe.events import ClientPresence, Note, Outcome, RoundCounts
from flmq.transport import PRESENCE, Address, client_queue, client_topology, presence_key
from flmq.wire import Companion, Presence, PresenceKind, RollCall, decode, encode
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from tests.end_to_end.federation import Federation, Peer, fed_avg, nudge
from tests.transport.rigs import PATIENCE


def _hello_as(
    peer: Peer, client_id: str, instance: str = "nobody", *, answers: str = "", wait: bool = True
) -> None:
    body = Presence(PresenceKind.HELLO, client_id, "main", instance, heartbeat_seconds=3600.0)
    address = Address(PRESENCE, presence_key("main", client_id))
    sent = peer.sender.send(address, body, mandatory=False, correlation_id=answers)
    if wait:
        sent.outcome.result(PATIENCE)


def test_hellos_in_invented_names_make_no_round_ask_ghosts(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    federation.serve("a")
    peer = federation.peer("hand")
    server = federation.run(fed_avg(3))
    for i in range(2000):
        _hello_as(peer, f"ghost-{i}", wait=False)
    _hello_as(peer, "ghost", answers="a guess")
    said = server.watch.wait_for(Note, lambda note: "hellos were dropped" in note.text)
    assert "their clients have no queue (ghost-0, " in said.text
    federation.serve("b")
    peer.reply(peer.task())
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=3, accepted=3)
    assert {each.client_id for each in server.watch.of(ClientPresence)} == {"a", "b", "hand"}
    lines = [r for r in caplog.records if "hellos were dropped" in r.getMessage()]
    assert 1 <= len(lines) <= 2
    assert all(line.levelno == logging.WARNING for line in lines)


def test_a_queue_without_a_reader_makes_nobody_online(federation: Federation) -> None:
    """A damaged hello names a client that is away, or one that there was."""
    peer = federation.peer("hand")
    peer.transport.declare(client_topology("away"))
    server = federation.run(fed_avg(1), rounds=2)
    task = peer.task()
    for i in range(20):
        _hello_as(peer, "away", f"process-{i}")
    peer.reply(task)
    peer.reply(peer.task())
    server.history()
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=1, accepted=1)] * 2
    assert {each.client_id for each in server.watch.of(ClientPresence)} == {"hand"}
    info = peer.transport.inspect_queue("flmq.client.away")
    assert info is not None
    # Not one greeting for each: it may be long until somebody reads them.
    assert info.messages_ready < 15


def test_a_damaged_hello_of_a_client_that_is_there_changes_nothing(federation: Federation) -> None:
    federation.serve("a")
    peer = federation.peer("hand")
    server = federation.run(fed_avg(2), rounds=2)
    for _ in range(2):
        task = peer.task()
        _hello_as(peer, "a", "another process")
        peer.reply(task)
    server.history()
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=2, accepted=2)] * 2
    assert [each.status for each in server.watch.of(ClientPresence)] == ["online", "online"]


def test_a_client_that_comes_back_under_its_id_is_let_in_again(federation: Federation) -> None:
    federation.serve("a", options=WorkerOptions(heartbeat=30.0))
    peer = federation.peer("hand")
    server = federation.run(fed_avg(2), rounds=2)
    first = peer.task()
    federation.workers["a"].stop()
    server.watch.wait_for(ClientPresence, lambda p: (p.client_id, p.status) == ("a", "away"))
    federation.serve("a")
    server.watch.wait_for(ClientPresence, lambda p: (p.client_id, p.status) == ("a", "online"), 2)
    peer.reply(first)
    peer.reply(peer.task())
    server.history()
    assert server.watch.words(2) == {"a": [Outcome.ACCEPTED], "hand": [Outcome.ACCEPTED]}


def test_those_who_are_not_on_the_list_are_dropped_by_name(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    federation.serve("alice", "mallory")
    peer = federation.peer("bob")
    caplog.set_level(logging.WARNING)
    server = federation.run(fed_avg(2), clients_allowed=frozenset({"alice", "bob"}))
    said = server.watch.wait_for(Note, lambda note: "hellos were dropped" in note.text)
    assert said.text.endswith("their clients are not among those that are allowed (mallory)")
    peer.reply(peer.task())
    server.history()
    assert server.watch.words() == {"alice": [Outcome.ACCEPTED], "bob": [Outcome.ACCEPTED]}
    assert {each.client_id for each in server.watch.of(ClientPresence)} == {"alice", "bob"}
    told = [r.getMessage() for r in caplog.records if "has no part for client" in r.getMessage()]
    assert told
    assert all("mallory: it is one of the clients that are not among" in text for text in told)


def test_a_client_of_another_base_takes_no_part(federation: Federation) -> None:
    """Adapters of two base models have a mean, which is nonsense: the strategy says which base."""
    strategy = fed_avg(2)
    strategy.required_properties = {"base_digest": "1234"}
    federation.serve("other", properties={"base_digest": "5678"})
    server = federation.run(strategy)
    said = server.watch.wait_for(Note, lambda note: "hellos were dropped" in note.text)
    assert "lack the property base_digest='1234', which this job requires (other)" in said.text
    federation.serve("a", "b", properties={"base_digest": "1234"})
    server.history()
    assert server.watch.words() == {"a": [Outcome.ACCEPTED], "b": [Outcome.ACCEPTED]}


@pytest.mark.parametrize(
    ("size", "why"),
    [(200_000, ""), (3_000_000, "are more than the 1048576 that come here")],
)
def test_a_hello_with_too_much_in_it_costs_its_properties_or_itself(
    federation: Federation, size: int, why: str
) -> None:
    peer = federation.peer("hand")
    server = federation.run(fed_avg(1))
    task = peer.task()
    envelope = pb.Envelope.FromString(encode(peer.presence()))
    envelope.presence.properties["notes"].str_value = "x" * size
    peer.raw(Address(PRESENCE, presence_key("main", "hand")), envelope.SerializeToString())
    if why:
        (incoming,) = federation.dead(1)
        assert why in str(incoming.message.headers["x-flmq-reason"])
    peer.reply(task)
    server.history()
    assert [each.status for each in server.watch.of(ClientPresence)] == ["online"]


def test_many_clients_of_one_process_are_admitted_each_by_its_own_greeting(
    federation: Federation,
) -> None:
    """What a message says of others is believed of none whose queue is not read."""
    names = [f"c{number}" for number in range(30)]
    federation.workers["many"] = federation.worker({name: {} for name in names}, nudge)
    peer = federation.peer("hand")
    server = federation.run(fed_avg(31))
    ghosts = tuple(Companion(f"ghost-{number}") for number in range(50))
    body = Presence(PresenceKind.HELLO, "ghost", "main", "nobody", others=ghosts)
    envelope = pb.Envelope.FromString(encode(body))
    envelope.presence.others.add(client_id="not/valid")
    address = Address(PRESENCE, presence_key("main", "ghost"))
    peer.raw(address, envelope.SerializeToString())
    said = server.watch.wait_for(Note, lambda note: "are not valid" in note.text)
    assert "1 hellos were dropped" in said.text
    assert "not/valid" in said.text
    peer.reply(peer.task())
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=31, accepted=31)
    assert {each.client_id for each in server.watch.of(ClientPresence)} == {"hand", *names}


def test_an_older_server_hears_every_client_of_a_process(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not know of others in a message, nor says in its roll calls that it does."""
    each, roll_call = Presence.each, RollCall.__init__

    def of_the_first(presence: Presence, greeting: str) -> Iterator[tuple[Presence, str]]:
        return islice(each(presence, greeting), 1)

    def of_old(made: RollCall, *args: Any, **kwargs: Any) -> None:
        roll_call(made, *args, **kwargs)
        object.__setattr__(made, "hears_others", False)

    monkeypatch.setattr(Presence, "each", of_the_first)
    monkeypatch.setattr(RollCall, "__init__", of_old)
    server = federation.run(fed_avg(20))
    names = {f"c{number}": {"partition-id": number} for number in range(20)}
    federation.workers["many"] = federation.worker(names, nudge)
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=20, accepted=20)


def test_a_client_that_appears_at_two_sites_is_refused_by_name_while_the_first_lives(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    federation.serve("a", options=WorkerOptions(site="eu-west", heartbeat=0.5))
    peer = federation.peer("hand")
    caplog.set_level(logging.WARNING)
    server = federation.run(fed_avg(2), rounds=2)
    task = peer.task()
    federation.rig.transport().declare(client_topology("a", "ap-south"))
    body = Presence(PresenceKind.HELLO, "a", "ap-south", "another", heartbeat_seconds=3600.0)
    for _ in range(2):
        address = Address(PRESENCE, presence_key("ap-south", "a"))
        peer.sender.send(address, body, mandatory=False).outcome.result(PATIENCE)
    said = server.watch.wait_for(Note, lambda note: "hellos were dropped" in note.text)
    assert "live at another site" in said.text
    assert said.text.endswith("(a of eu-west, heard from ap-south)")
    peer.reply(task)
    peer.reply(peer.task())
    server.history()
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=2, accepted=2)] * 2


def test_hellos_from_sites_without_end_are_counted_together(federation: Federation) -> None:
    """Those of the process itself too, or it could have the roll called at any number of sites."""
    federation.serve("a", options=WorkerOptions(site="eu-west", heartbeat=0.5))
    peer = federation.peer("hand")
    server = federation.run(fed_avg(2))
    task = peer.task()
    instance = federation.workers["a"].worker._herald.instance
    for number in range(50):
        site = f"s{number}"
        body = Presence(PresenceKind.HELLO, "a", site, instance, heartbeat_seconds=3600.0)
        address = Address(PRESENCE, presence_key(site, "a"))
        peer.sender.send(address, body, mandatory=False).outcome.result(PATIENCE)
    server.watch.wait_for(Note, lambda note: "hellos were dropped" in note.text)
    peer.reply(task)
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=2)
    told = [note for note in server.watch.of(Note) if "live at another site" in note.text]
    assert len(told) == 1


def test_a_site_that_nobody_named_has_its_roll_called_once_a_client_of_it_is_heard(
    federation: Federation,
) -> None:
    """Its other clients need not be waited for until their next heartbeat."""
    federation.serve("a", "b", options=WorkerOptions(site="eu-west", heartbeat=3600.0))
    peer = federation.peer("hand")
    server = federation.run(fed_avg(4), heartbeat=3600.0)
    federation.serve("c", options=WorkerOptions(site="eu-west"))
    peer.reply(peer.task())
    server.history()
    words = server.watch.words()
    assert set(words) == {"a", "b", "c", "hand"}


def test_greetings_are_not_on_the_brokers_disk(memory_federation: Federation) -> None:
    """Each would cost a sync of its queue's file, and thousands are greeted as a server starts."""
    peer = memory_federation.peer("hand")
    peer.transport.declare(client_topology("away"))
    memory_federation.run(fed_avg(1))
    task = peer.task()
    _hello_as(peer, "away")
    consumer = peer.transport.consumer([client_queue("away")], prefetch=10)
    delivery = consumer.receive(PATIENCE)
    while delivery is not None and not delivery.message.correlation_id:
        delivery = consumer.receive(PATIENCE)  # the roll call to everybody
    assert delivery is not None
    assert isinstance(decode(delivery.message.body), RollCall)
    assert not delivery.message.persistent
    peer.reply(task)
