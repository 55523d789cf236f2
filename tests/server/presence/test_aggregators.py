"""The directory of aggregators: who is there, who is topmost, what each has."""

from __future__ import annotations

import time

from flmq.server.presence.aggregators import Aggregators
from flmq.wire import AggregatorReport, OrderInHand


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def report(site: str, *below: str, orders: tuple[OrderInHand, ...] = ()) -> AggregatorReport:
    return AggregatorReport(site, "one", (site, *below), orders, report_seconds=5.0)


def heard(*reports: AggregatorReport) -> tuple[Aggregators, Clock]:
    clock = Clock()
    aggregators = Aggregators(clock)
    for each in reports:
        aggregators.hear(each)
    return aggregators, clock


def test_only_the_topmost_are_ordered_from() -> None:
    aggregators, _ = heard(report("eu-west"), report("eu", "eu-west", "eu-east"), report("us"))
    assert aggregators.topmost() == {
        "eu": frozenset({"eu", "eu-west", "eu-east"}),
        "us": frozenset({"us"}),
    }


def test_one_that_was_not_heard_for_two_and_a_half_reports_is_not_there() -> None:
    aggregators, clock = heard(report("eu", "eu-west"), report("eu-west"))
    clock.now += 12.0
    aggregators.hear(report("eu-west"))
    clock.now += 1.0
    assert aggregators.topmost() == {"eu-west": frozenset({"eu-west"})}
    assert aggregators.heard("eu") == 100.0
    assert aggregators.heard("mars") is None


def test_one_that_leaves_is_not_there() -> None:
    aggregators, clock = heard(report("eu"))
    aggregators.hear(AggregatorReport("eu", "one", ("eu",), report_seconds=0.0))
    clock.now += 0.1
    assert aggregators.topmost() == {}


def test_each_site_is_of_one_however_they_contradict_each_other() -> None:
    aggregators, _ = heard(report("a", "b"), report("b", "a", "c"), report("d", "c", "e"))
    assert aggregators.topmost() == {"a": frozenset("ab"), "d": frozenset("dce")}
    ring, _ = heard(report("x", "y"), report("y", "z"), report("z", "x"))
    covered = [site for covers in ring.topmost().values() for site in covers]
    assert len(covered) == len(set(covered))


def test_what_it_has_of_an_order() -> None:
    order = OrderInHand("t1", b"digest", b"\x05")
    aggregators, _ = heard(report("eu", orders=(order,)))
    assert aggregators.in_hand("eu", "t1") == order
    assert aggregators.in_hand("eu", "t2") is None
    assert aggregators.in_hand("us", "t1") is None


def test_invented_sites_take_bounded_memory_and_time() -> None:
    clock = Clock()
    aggregators = Aggregators(clock)
    orders = tuple(OrderInHand(f"o{n}", b"12345678", bytes(500)) for n in range(1000))
    covers = tuple(f"s{n}" for n in range(900))
    for number in range(3000):
        aggregators.hear(AggregatorReport(f"s{number}", "i", covers, orders, report_seconds=1.0))
    assert aggregators._bytes <= 64 << 20
    assert len(aggregators._heard) <= 1000
    begun = time.process_time()
    aggregators.topmost()
    assert time.process_time() - begun < 2.0
    clock.now += 10.0  # they are gone, and the next is heard
    for number in range(1000):
        aggregators.hear(AggregatorReport(f"t{number}", "i", (f"t{number}",), report_seconds=1.0))
    assert set(aggregators.topmost()) >= {"t0"}
