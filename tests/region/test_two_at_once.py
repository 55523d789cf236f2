"""One aggregator a site: a second is refused by name, or stands by and takes over."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flmq.region import AggregatorOptions
from flmq.region.app import Aggregator
from flmq.region.errors import AggregatorInUse
from flmq.region.options import InvalidAggregatorOptions
from tests.end_to_end.federation import in_thread
from tests.region.stage import Stage, flat
from tests.transport.rigs import PATIENCE


def test_a_second_is_refused_and_the_other_named(stage: Stage) -> None:
    first = stage.aggregate()
    with pytest.raises(AggregatorInUse, match=r"'main'.*--standby") as caught:
        stage.aggregate()
    assert caught.value.instance == first.instance
    assert first.instance in str(caught.value)


def test_of_another_site_is_none_of_it(memory_stage: Stage) -> None:
    memory_stage.aggregate()
    memory_stage.aggregate(site="other")
    memory_stage.stop()


def test_a_standby_takes_over_with_what_is_held(stage: Stage, tmp_path: Path) -> None:
    stage.aggregate(tmp_path)
    order = stage.send_order(stage.order(["ann", "bob"]))
    stage.send_reply(stage.reply("ann"))
    stage.report(lambda report: any(any(each.held) for each in report.orders))
    transport = stage.rig.transport()
    options = AggregatorOptions(state_dir=tmp_path, standby=True, report_every=0.2)
    second = Aggregator(transport, options)
    begun = threading.Event()
    done = in_thread(lambda: second.run(begun.set))
    assert not begun.wait(0.5)
    stage.stop()
    assert begun.wait(PATIENCE)
    stage.send_reply(stage.reply("bob"))
    assert stage.summed(order)[0] == flat(["ann", "bob"])
    second.stop()
    done.result(PATIENCE)


def test_a_standby_is_stopped_in_order(memory_stage: Stage) -> None:
    memory_stage.aggregate()
    second = Aggregator(memory_stage.rig.transport(), AggregatorOptions(standby=True))
    done = in_thread(second.run)
    second.stop()
    done.result(PATIENCE)
    memory_stage.stop()


@pytest.mark.parametrize(
    ("site", "regions", "word"),
    [
        ("a.b", "", "site 'a.b'"),
        ("", "", "site ''"),
        ("eu", "a,b!", "site 'b!'"),
        ("eu", "a,a", "named once"),
        ("eu", "eu,a", "eu itself"),
    ],
)
def test_names_that_no_site_has_are_refused(site: str, regions: str, word: str) -> None:
    with pytest.raises(InvalidAggregatorOptions, match=word):
        AggregatorOptions(site=site, regions=regions)


def test_regions_are_read_as_typed() -> None:
    assert AggregatorOptions(regions=" a, b ,").below == ("a", "b")
