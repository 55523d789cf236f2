"""An aggregator on a provisioned virtual host: it believes who sends, and is believed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flmq.common.phase import Phase
from flmq.messaging import Sender
from flmq.observe.events import Note, PartialSumCame, RoundCounts
from flmq.region import AggregatorOptions
from flmq.region.app import Aggregator
from flmq.server.strategy import FedAvg
from flmq.transport import DEAD, REGIONAL, Address, reply_key
from flmq.wire import Failure, FailureKind, Reply
from tests.end_to_end.federation import JOB, Federation, in_thread, initial
from tests.security.hosts import SITE, Host
from tests.security.test_provisioned import LARGE, plain_model, serve
from tests.transport.rigs import PATIENCE


@contextmanager
def adding_up(host: Host) -> Iterator[Aggregator]:
    """Run the site's aggregator, as its user."""
    options = AggregatorOptions(report_every=0.2, speakers=host.speakers)
    aggregator = Aggregator(host.as_user(host.users.aggregator), options)
    begun = threading.Event()
    done = in_thread(lambda: aggregator.run(begun.set))
    assert begun.wait(PATIENCE), done.exception(0)
    yield aggregator
    aggregator.stop()
    done.result(PATIENCE)


def mean_of(clients: int) -> FedAvg:
    return FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=initial(LARGE),
    )


def test_a_partial_sum_of_provisioned_clients_has_the_same_bits(
    federation: Federation, host: Host
) -> None:
    users = host.users
    with adding_up(host):
        serve(federation, host, users.alice, users.bob, users.pool)
        server = federation.run(mean_of(5), rounds=2, speakers=host.speakers)
        assert server.model() == plain_model(users.alice, users.bob, *users.pooled)
    assert [r.fit for r in server.watch.rounds()] == [RoundCounts(asked=5, accepted=5)] * 2
    assert any(each.accepted == 5 for each in server.watch.of(PartialSumCame))
    assert not any("refused" in note.text for note in server.watch.of(Note))


def test_a_reply_in_anothers_name_is_refused_by_the_aggregator(
    federation: Federation, host: Host
) -> None:
    users = host.users
    with adding_up(host):
        sender = Sender(host.as_user(users.alice).publisher(), user_id=users.alice)
        said = Failure(FailureKind.SETTLED, message="forged")
        forged = Reply("t", JOB, 1, Phase.FIT, users.bob, 1, b"n", 0.0, said)
        address = Address(REGIONAL, reply_key(SITE, users.alice, JOB))
        sender.send(address, forged).outcome.result(PATIENCE)
        dead = host.witness().consumer([DEAD], prefetch=1).receive(PATIENCE)
    assert dead is not None
    assert "another key than that of whom they name" in str(dead.message.headers["x-flmq-reason"])
