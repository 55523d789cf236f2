"""Runs on a provisioned virtual host: the same bits, and nothing declared by who takes part."""

from __future__ import annotations

import threading

import pytest

from flmq.client.serving.standing import Standing
from flmq.common import ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.errors import BrokerAccessRefused
from flmq.common.phase import Phase
from flmq.common.typing import Config, FitIns, Metrics, NDArrays, Parameters, Scalar
from flmq.messaging import Inbox, Sender
from flmq.observe.events import ClientPresence, Note, RoundCounts
from flmq.server import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.testing import fast_retries
from flmq.transport import (
    DEAD,
    PRESENCE,
    REGIONAL,
    REPLIES,
    TASKS,
    Address,
    Message,
    Transport,
    client_queue,
    own_models_queue,
    presence_key,
    reply_key,
    task_key,
)
from flmq.transport.provisioned import NotProvisioned
from flmq.transport.rabbitmq import RabbitMQTransport
from flmq.wire import (
    AggregatorReport,
    Begun,
    Body,
    Companion,
    ModelRequest,
    PartialSum,
    Presence,
    PresenceKind,
    blob_chunk_headers,
)
from tests.end_to_end.federation import JOB, Federation, Keeping, Nudge, fed_avg, initial, nudge
from tests.security.hosts import SITE, Host, RabbitMQHost
from tests.transport.rigs import PATIENCE, MemoryRig, take

LARGE = 400_000
"""Numbers of a model that goes by the stream, and whose replies come in chunks."""


def serve(federation: Federation, host: Host, *users: str) -> None:
    """Start a worker for each client user."""
    for user in users:
        ids: dict[str, dict[str, Scalar]] = {client_id: {} for client_id in host.users.speaks[user]}
        transport = host.as_user(user)
        federation.workers[user] = federation.worker(ids, nudge, transport=transport)


def serve_held(
    federation: Federation,
    host: Host,
    user: str,
    begun: threading.Event | None = None,
    over: Transport | None = None,
) -> threading.Event:
    """Start a worker that trains once it may; ``begun`` is set when it would."""
    go = threading.Event()

    class Held(Nudge):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            if begun is not None:
                begun.set()
            go.wait(PATIENCE)
            return super().fit(parameters, config)

    federation.workers[user] = federation.worker(
        {user: {}}, lambda context: Held(context.client_id), transport=over or host.as_user(user)
    )
    return go


class OwnModels(Keeping):
    """Sends each client a model of its own, large enough to go in chunks."""

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        first = parameters_to_ndarrays(parameters)[0]
        return [
            (proxy, FitIns(ndarrays_to_parameters([first + sum(proxy.cid.encode())]), ins.config))
            for proxy, ins in super().configure_fit(server_round, parameters, client_manager)
        ]


def own_models(count: int) -> OwnModels:
    return OwnModels(
        fraction_evaluate=0.0,
        min_fit_clients=count,
        min_available_clients=count,
        initial_parameters=initial(LARGE),
    )


def plain_model(
    *client_ids: str, size: int = LARGE, rounds: int = 2, strategy: Keeping | None = None
) -> bytes:
    """The model that these clients make where nothing is provisioned."""
    with fast_retries():
        rig = MemoryRig()
        federation = Federation(rig)
        federation.serve(*client_ids)
        strategy = strategy or fed_avg(len(client_ids), initial_parameters=initial(size))
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


def test_models_for_one_client_alone_come_by_its_queue_of_tasks(
    federation: Federation, host: Host
) -> None:
    users = host.users
    serve(federation, host, users.pool, users.alice)
    # A chunk that nobody waits for, and one that no server can have sent.
    witness = host.witness()
    headers = blob_chunk_headers("0" * 32, 0)
    publisher = witness.publisher()
    for exchange in (TASKS, REGIONAL):
        way = Address(exchange, task_key(SITE, users.alice))
        publisher.publish(way, Message(b"stray", headers=headers)).result(PATIENCE)
    server = federation.run(own_models(4), rounds=2, speakers=host.speakers)
    assert server.model() == plain_model(*users.pooled, users.alice, strategy=own_models(4))
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=4, accepted=4)] * 2
    for client_id in (*users.pooled, users.alice):
        assert host.transport().inspect_queue(own_models_queue(client_id)) is None
    (dead,) = take(witness.consumer([DEAD], prefetch=5), 1)
    assert dead.message.headers["x-first-death-queue"] == client_queue(users.alice)


def test_a_user_of_a_pool_speaks_for_its_clients_where_the_server_has_the_file(
    federation: Federation, host: Host
) -> None:
    users = host.users
    serve(federation, host, users.pool, users.alice)
    server = federation.run(
        fed_avg(4, initial_parameters=initial(LARGE)), rounds=2, speakers=host.speakers
    )
    assert server.model() == plain_model(*users.pooled, users.alice)
    assert not server.watch.of(Note)


def test_a_user_of_a_pool_is_refused_by_name_where_the_server_has_no_file(
    federation: Federation, host: Host
) -> None:
    users = host.users
    go = serve_held(federation, host, users.alice)
    server = federation.run(fed_avg(1), rounds=1)
    server.watch.wait_for(ClientPresence)
    serve(federation, host, users.pool)
    said = server.watch.wait_for(Note, lambda note: "does not speak for whom" in note.text)
    assert users.pool in said.text
    assert "--federation" in said.text
    go.set()
    server.history()
    assert {each.client_id for each in server.watch.of(ClientPresence)} == {users.alice}


def test_a_client_that_the_file_does_not_have_is_told_what_to_do(host: Host) -> None:
    transport = host.as_user(host.users.alice)
    federation = Federation(host)
    running = federation.worker({"carol": {}}, nudge, transport=transport)
    with pytest.raises(NotProvisioned, match=r"queue of client carol .*flmq provision"):
        running.done.result(PATIENCE)


def test_a_client_that_is_removed_while_it_trains_counts_no_more(
    real_host: RabbitMQHost,
) -> None:
    host, users = real_host, real_host.users
    federation = Federation(host)
    begun, over = threading.Event(), host.as_user(users.alice)
    go = serve_held(federation, host, users.alice, begun, over)
    others = serve_held(federation, host, users.bob)
    server = federation.run(fed_avg(2, accept_failures=True), rounds=1, timeout=6.0)
    assert begun.wait(PATIENCE)
    of_old, before = host.url_of(users.alice), host.file.read_text()
    host.file.write_text(before.replace(f'"{users.alice}", ', ""))
    host.provision()
    others.set()
    server.watch.wait_for(
        ClientPresence,
        lambda each: each.client_id == users.alice and each.status in ("away", "gone"),
    )
    go.set()
    server.history()
    (closed,) = server.watch.rounds()
    assert (closed.fit.asked, closed.fit.accepted) == (2, 1)
    assert host.witness().inspect_queue(client_queue(users.alice)) is None
    with pytest.raises(BrokerAccessRefused):
        RabbitMQTransport(of_old, name="alice").publisher()
    # Its process waits for the right to send its reply, and says so, until somebody ends it.
    over.close()
    federation.close()


FORGED = ["hello", "bye", "companion", "site", "request", "report", "sum", "no user"]


def forged(kind: str, host: Host) -> tuple[Address, Body]:
    """What alice sends under her own key, as the broker lets her, in another's name."""
    users = host.users
    own, upwards = presence_key(SITE, users.alice), reply_key(SITE, users.alice, JOB)
    instance = "forged"
    match kind:
        case "hello":
            return Address(PRESENCE, own), Presence(PresenceKind.HELLO, users.bob, SITE, instance)
        case "bye":
            return Address(PRESENCE, own), Presence(PresenceKind.BYE, users.bob, SITE, instance)
        case "companion":
            hello = Presence(
                PresenceKind.HELLO, users.alice, SITE, instance, others=(Companion(users.bob),)
            )
            return Address(PRESENCE, own), hello
        case "site":
            return Address(PRESENCE, own), Presence(PresenceKind.HELLO, users.alice, "eu", instance)
        case "request":
            return Address(REPLIES, upwards), ModelRequest(JOB, users.bob, "0" * 64)
        case "report":
            return Address(PRESENCE, own), AggregatorReport(
                SITE, instance, (SITE,), (), 0, 2.0, "0"
            )
        case "sum":
            partial = PartialSum(
                "t", JOB, 1, Phase.FIT, SITE, 1, b"n", "run", Parameters([], "flmq.partial")
            )
            return Address(REPLIES, upwards), partial
    return Address(PRESENCE, own), Presence(PresenceKind.HELLO, users.alice, SITE, instance)


@pytest.mark.parametrize("kind", FORGED)
def test_what_names_another_is_refused_counted_and_named(
    federation: Federation, host: Host, kind: str
) -> None:
    users = host.users
    go = serve_held(federation, host, users.bob)
    alice = host.as_user(users.alice)
    sender = Sender(alice.publisher(), user_id=None if kind == "no user" else users.alice)
    server = federation.run(fed_avg(1), rounds=1)
    server.watch.wait_for(ClientPresence)
    address, body = forged(kind, host)
    for _ in range(3):
        sender.send(address, body, mandatory=False).outcome.result(PATIENCE)
    refused = server.watch.wait_for(Note, lambda note: "messages were refused: they" in note.text)
    assert users.alice in refused.text
    go.set()
    server.history()
    assert {each.client_id for each in server.watch.of(ClientPresence)} == {users.bob}
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=1, accepted=1)]
    counted = [note.text.split()[0] for note in server.watch.of(Note)]
    assert sum(map(int, counted)) == 3
    dead = host.witness().consumer([DEAD], prefetch=9).receive(PATIENCE)
    assert dead is not None
    assert "messages like it" in str(dead.message.headers["x-flmq-reason"])


def test_a_clients_note_to_itself_comes_back_and_is_believed(host: Host) -> None:
    """By it a client knows, after its death, in which task it died."""
    alice = host.as_user(host.users.alice)
    standing = Standing.found(alice, SITE)
    sender = standing.sender(alice.publisher())
    inbox = Inbox(
        alice.consumer([client_queue(host.users.alice)], prefetch=1, exclusive=True),
        sender,
        rejects=True,
        check=standing.problem,
    )
    note = Begun("t", host.users.alice, "me")
    sender.send(standing.notes_of(host.users.alice), note).outcome.result(PATIENCE)
    incoming = inbox.receive(PATIENCE)
    assert incoming is not None
    assert incoming.body == note


def test_what_a_client_cannot_read_is_dead_lettered_by_its_queue(host: Host) -> None:
    users = host.users
    transport = host.as_user(users.alice)
    federation = Federation(host)
    running = federation.worker({users.alice: {}}, nudge, transport=transport)
    garbage = Message(b"garbage")
    address = Address(TASKS, task_key(SITE, users.alice))
    host.transport().publisher().publish(address, garbage).result(PATIENCE)
    dead = host.witness().consumer([DEAD], prefetch=1).receive(PATIENCE)
    assert dead is not None
    assert bytes(dead.message.body) == b"garbage"
    running.stop()
