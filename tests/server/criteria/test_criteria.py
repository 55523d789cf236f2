"""Criteria: whom they select, what they say of the others, and how long one waits for whom."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from flmq.common.errors import NotEnoughClients
from flmq.common.typing import Properties, Scalar
from flmq.round import Outcome, TaskOutcome
from flmq.server.client_manager import SimpleClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.criteria import (
    ByProperty,
    Criterion,
    IncludingAway,
    InvalidCriterion,
    NoRecentFailure,
    TooFewMatch,
)
from flmq.server.criteria.failures import KEPT_ROUNDS, FailureLog, failed_clients
from flmq.server.strategy import FedAvg
from flmq.server.strategy.options import InvalidStrategyOption
from tests.server.proxies import IdleProxy, manager_of, model

PROPERTIES: dict[str, Properties] = {
    "ann": {"region": "de", "gpu": True, "gb": 16},
    "bob": {"region": "fr", "gpu": False, "gb": 4},
    "cat": {"region": "us", "gpu": True, "gb": "lots"},
    "dan": {},
}


def client(cid: str) -> ClientProxy:
    proxy = IdleProxy(cid)
    proxy.properties = dict(PROPERTIES.get(cid, {}))
    return proxy


def here(wait_timeout: float = 0.0) -> SimpleClientManager:
    manager = SimpleClientManager(seed=1, wait_timeout=wait_timeout)
    for cid in PROPERTIES:
        manager.register(client(cid))
    return manager


def selected(criterion: Criterion) -> str:
    return " ".join(cid for cid in PROPERTIES if criterion.select(client(cid)))


by_property: Any = ByProperty
fed_avg: Any = FedAvg


def big(gb: Any) -> bool:
    return bool(gb >= 8)


@pytest.mark.parametrize(
    ("criterion", "who"),
    [
        (ByProperty(region="de"), "ann"),
        (ByProperty(region={"de", "us"}), "ann cat"),
        (ByProperty(region=["de", "fr"], gpu=True), "ann"),
        (ByProperty(gb=big), "ann"),
        (ByProperty(lambda properties: len(properties) == 3), "ann bob cat"),
        (ByProperty(lambda properties: bool(properties["gpu"]), region={"us", "fr"}), "cat"),
        (ByProperty(region="de") | ByProperty(region="fr"), "ann bob"),
        (~ByProperty(gpu=True), "bob dan"),
        (~(ByProperty(gpu=True) & ByProperty(region="us")), "ann bob dan"),
        (NoRecentFailure(), "ann bob cat dan"),
    ],
)
def test_who_is_selected(criterion: Criterion, who: str) -> None:
    assert selected(criterion) == who


def test_a_function_that_raises_for_what_a_client_says_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    criterion = ByProperty(gb=big)
    assert selected(criterion) == selected(criterion) == "ann"
    (record,) = caplog.records
    assert "client cat, which is not selected" in record.message
    assert "TypeError" in record.message


@pytest.mark.parametrize(
    ("construct", "said"),
    [
        (lambda: by_property(), "selects by nothing: give properties"),
        (lambda: by_property("region"), "the predicate is a str: give a function"),
        (lambda: by_property(region=set()), "region is empty"),
        (lambda: by_property(region=None), "region is a NoneType: give a value"),
        (lambda: by_property(region={"a": 1}), "region is a dict"),
        (lambda: NoRecentFailure(0), "rounds is 0: give a number from 1 to 100"),
        (lambda: NoRecentFailure(101), "rounds is 101"),
        (lambda: NoRecentFailure(True), "rounds is True"),
        (lambda: by_property(a=1) & "b", "cannot be combined with a str"),
        (lambda: fed_avg(criterion="eu"), "criterion is a str: give a flmq Criterion"),
        (lambda: fed_avg(criterion=NoRecentFailure), "the class NoRecentFailure: make one"),
    ],
)
def test_what_makes_no_sense_is_refused_at_construction(construct: Any, said: str) -> None:
    with pytest.raises((InvalidCriterion, InvalidStrategyOption), match=said):
        construct()


def test_its_text_is_the_same_in_every_process() -> None:
    regions: list[Scalar] = [f"region-{number}" for number in range(20)]
    sorted_text = ", ".join(repr(region) for region in sorted(map(str, regions)))
    assert repr(ByProperty(region=set(regions))) == f"ByProperty(region={{{sorted_text}}})"
    both = ByProperty(gb=big, gpu=True) & NoRecentFailure(3)
    assert repr(both) == "(ByProperty(gb=a function, gpu=True) & NoRecentFailure(rounds=3))"


def test_too_few_that_match_are_counted_by_reason() -> None:
    """Four are here and one matches; nothing waits, for a round is to ask whom it can."""
    manager = here()
    chosen = manager.sample(2, min_num_clients=1, criterion=ByProperty(region="de", gpu=True))
    assert chosen == []
    assert manager.shortfall == (
        "2 clients are to be asked and 1 are selected by ByProperty(region='de', gpu=True) "
        "(the others: 2 have another region, 1 have no region)"
    )


def test_waiting_in_vain_for_such_clients_says_who_is_there() -> None:
    with pytest.raises(TooFewMatch, match="2 clients that fulfil ByProperty") as raised:
        here().sample(2, criterion=ByProperty(region="de"))
    assert isinstance(raised.value, NotEnoughClients)
    assert "1 of the 4 that came within 0 s do (the others: 2 have another" in str(raised.value)
    assert (raised.value.wanted, raised.value.have) == (2, 1)


def test_words_stay_short_whatever_the_criterion_says() -> None:
    class Wordy(Criterion):
        def select(self, client: ClientProxy) -> bool:
            return False

        def why_not(self, client: ClientProxy) -> str:
            return f"\x1b[31m{client.cid}" * 10_000

        def __repr__(self) -> str:
            return "W" * 100_000

    manager = manager_of(*(f"client-{number}" for number in range(1000)))
    assert manager.sample(1, criterion=Wordy()) == []
    assert manager.shortfall is not None
    assert len(manager.shortfall) < 1000
    assert "995 for other reasons" in manager.shortfall
    assert "\x1b" not in manager.shortfall


def test_it_waits_until_enough_that_match_are_here() -> None:
    manager = SimpleClientManager(seed=1, wait_timeout=30.0)
    awaited = threading.Event()
    manager.on_wait = lambda needed, have: awaited.set() if have == 0 else None
    for cid in ("bob", "cat", "dan"):
        manager.register(client(cid))
    found: list[list[ClientProxy]] = []
    thread = threading.Thread(
        target=lambda: found.append(manager.sample(1, criterion=ByProperty(region="de")))
    )
    thread.start()
    assert awaited.wait(30.0)
    manager.register(client("ann"))
    thread.join(30.0)
    assert [each.cid for each in found[0]] == ["ann"]


def test_clients_that_are_away_may_be_chosen_by_property_too() -> None:
    manager = here()
    manager.set_away("ann", "silent")
    manager.set_gone("bob", "said bye")
    only = ByProperty(region={"de", "fr"})
    with pytest.raises(TooFewMatch, match="0 of the 2"):
        manager.sample(1, criterion=only)
    chosen = manager.sample(1, criterion=only & IncludingAway())
    assert [each.cid for each in chosen] == ["ann"]


# -- failures


def test_who_failed_is_left_out_for_so_many_rounds() -> None:
    manager = manager_of("a", "b", "c")
    manager.begin(7, 1, "fit")
    manager.failures.note(1, ["b"])
    for server_round, who in ((1, "a c"), (2, "a c"), (3, "a c"), (4, "a b c")):
        manager.begin(7, server_round, "fit")
        chosen = manager.sample(len(who.split()), criterion=NoRecentFailure(2))
        assert " ".join(sorted(each.cid for each in chosen)) == who


def test_nobody_is_waited_for_who_failed() -> None:
    """A wait for those that failed would never end: only rounds make them eligible again."""
    manager = manager_of("a", "b", wait_timeout=1e6)
    manager.begin(7, 1, "fit")
    manager.failures.note(1, ["a", "b"])
    assert manager.sample(1, 2, NoRecentFailure(3)) == []
    assert manager.shortfall is not None
    assert manager.shortfall.endswith("(the others: 2 failed in the last 3 rounds)")


def test_the_log_of_failures_is_bounded() -> None:
    log = FailureLog()
    for server_round in range(1, 1000):
        log.begin(server_round)
        log.note(server_round, [f"client-{server_round}"])
    assert len(log._last) <= KEPT_ROUNDS + 1
    assert log.failed("client-999", 1)
    assert not log.failed("client-1", KEPT_ROUNDS)


@pytest.mark.parametrize(
    ("closed", "failed"), [("deadline", {"f", "r", "s", "u"}), ("enough answered (1)", set("fru"))]
)
def test_silence_is_a_failure_at_the_deadline_alone(closed: str, failed: set[str]) -> None:
    outcomes = [
        TaskOutcome("a", Outcome.ACCEPTED),
        TaskOutcome("f#2", Outcome.FAILED),
        TaskOutcome("r", Outcome.REJECTED),
        TaskOutcome("s", Outcome.SILENT),
        TaskOutcome("u", Outcome.UNROUTABLE),
    ]
    assert failed_clients(outcomes, closed) == failed


def test_a_client_manager_without_a_log_selects_everybody_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    criterion = NoRecentFailure()
    with caplog.at_level(logging.WARNING):
        assert selected(criterion) == "ann bob cat dan"
    (record,) = caplog.records
    assert "selects everybody: the client manager keeps no log of failures" in record.message


# -- in a strategy


@pytest.mark.parametrize(("fraction", "asked"), [(1.0, 3), (0.5, 1), (0.0, 1)])
def test_a_strategys_numbers_are_of_those_that_match(fraction: float, asked: int) -> None:
    strategy = FedAvg(
        fraction_fit=fraction,
        min_fit_clients=1,
        min_evaluate_clients=1,
        min_available_clients=3,
        criterion=ByProperty(lambda properties: "region" in properties),
    )
    chosen = strategy.configure_fit(1, model([1.0]), here())
    assert len(chosen) == asked
    assert "dan" not in {each.cid for each, _ in chosen}
    assert "dan" not in {each.cid for each, _ in strategy.configure_evaluate(1, model(), here())}
