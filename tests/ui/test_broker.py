"""The broker on the page: queues, connections, dead letters that stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pika
from playwright.sync_api import Page

from flmq.broker.overview import look_at_broker
from flmq.common.urls import parse_broker_url
from flmq.observe.eventlog.reader import Happened
from flmq.transport import open_transport
from flmq.transport.topology import DEAD, client_topology, federation_topology
from flmq.ui.reading.broker import buried_in, no_broker
from tests.conftest import SessionBroker
from tests.ui.pages import OneView, until
from tests.ui.servers import PageServer
from tests.ui.synthetic import HOSTILE, Synthetic, write_run

TOLD: dict[str, Any] = {
    "broker": "amqp://flmq@hub:5672/f",
    "how": "",
    "at_ms": 1_790_000_000_000,
    "checks": [
        {"name": "broker", "ok": True, "found": "it answers", "mend": ""},
        {"name": "clocks", "ok": None, "found": "not known", "mend": "name the API"},
        {"name": "node alarms", "ok": False, "found": "a disk alarm", "mend": "make room"},
    ],
    "queues": [
        {
            "name": f"flmq.client.{HOSTILE[0]}",
            "ready": 1234,
            "unacked": 2,
            "consumers": 1,
            "size": 9,
        },
        {"name": "flmq.dead", "ready": 3, "unacked": 0, "consumers": 0, "size": 600},
    ],
    "queues_total": 900,
    "connections": [{"user": HOSTILE[1], "state": "running", "count": 12}],
    "management_problem": "",
    "dead": {"ready": 3, "size": 600},
    "refused": [
        {
            "job": "j.1/x",
            "queue": "flmq.replies.j",
            "sender": HOSTILE[2],
            "reason": "a reply of c1 has no task",
            "count": 2,
            "at_ms": 1_790_000_000_000,
        }
    ],
}


def _bury(url: str, count: int) -> pika.BlockingConnection:
    """Declare a federation's fixed part, and lay messages into flmq.dead; return a connection."""
    with open_transport(url) as transport:
        transport.declare(federation_topology())
        transport.declare(client_topology("c.1"))
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    for number in range(count):
        channel.basic_publish(DEAD, "", b"%d" % number)
    return connection


def test_dead_letters_are_counted_and_stay_as_they_were(
    broker_url: str, broker_node: SessionBroker, tmp_path: Path
) -> None:
    write_run(tmp_path / "runs", Synthetic(rounds=1, clients=2))
    with _bury(broker_url, 3) as connection:
        api = broker_node.management
        where = f"http://{api.user}:{api.password}@{api.host}:{api.port}"
        environ = {"FLMQ_MANAGEMENT_URL": where, "FLMQ_BROKER_URL": broker_url}
        with PageServer(tmp_path / "runs", environ=environ) as server:
            told = server.get("broker")
            assert told == server.get("broker"), "it is not asked at each look"
        assert told["dead"]["ready"] == 3
        assert {"name": "broker", "ok": True}.items() <= told["checks"][0].items()
        assert any(check["name"] == "broker alarms" and check["ok"] for check in told["checks"])
        names = {queue["name"] for queue in told["queues"]}
        assert names == {DEAD, "flmq.client.c.1"}
        assert told["queues_total"] == 2
        assert not told["management_problem"]
        secret = parse_broker_url(broker_url).password
        assert secret
        assert secret not in str(told)
        channel = connection.channel()
        for number in range(3):
            method, _, body = channel.basic_get(DEAD)
            assert method is not None
            assert not method.redelivered
            assert body == b"%d" % number


def test_without_the_management_api_only_named_queues_are_asked_for(broker_url: str) -> None:
    with _bury(broker_url, 2):
        nowhere = {"FLMQ_MANAGEMENT_URL": "http://127.0.0.1:9"}
        found = look_at_broker(broker_url, [DEAD, "flmq.replies.none"], environ=nowhere)
    assert [(queue.name, queue.ready) for queue in found.queues] == [(DEAD, 2)]
    assert "no management API answers" in found.management_problem
    assert found.queues_total is None


def test_a_broker_that_is_gone_is_a_finding() -> None:
    found = look_at_broker("amqp://x:secret@127.0.0.1:9/f", [DEAD], environ={})
    assert [check.ok for check in found.checks] == [False]
    assert found.checks[0].mend
    assert "secret" not in str(found)
    assert look_at_broker("nonsense", [DEAD], environ={}).checks[0].ok is False


def test_reasons_are_counted_from_what_servers_logged() -> None:
    def line(at: int, text: str) -> tuple[str, Happened]:
        return "job", Happened(at, at, "log", "warning", "", None, text, {})

    begin = "message from flmq.replies.job to flmq.dead, sent by user 'c1': "
    told = buried_in(
        [
            line(1, begin + "no such task: 7"),
            line(2, begin + "no such task: 7"),
            line(3, begin + "too large (and 40 like it before, that were not logged)"),
            line(4, "client-1 wrote: message from flmq.replies.job to flmq.dead, sent by x: y"),
        ]
    )
    counts = [(each["reason"], each["sender"], each["count"], each["at_ms"]) for each in told]
    assert counts == [
        ("too large", "user 'c1'", 1, 3),
        ("not logged one by one, as there were many", "", 40, 3),
        ("no such task: 7", "user 'c1'", 2, 2),
    ]


def test_the_view_shows_what_is_amiss_first_and_names_as_text(page: Page) -> None:
    view = OneView(page, "broker")
    view.answers["/api/broker"] = TOLD
    view.open()
    until(page, "document.querySelectorAll('table').length === 5")
    rows = page.locator("table").nth(0).locator("tbody tr")
    assert rows.nth(0).inner_text().split("\n")[0].split("\t")[1:] == [
        "node alarms",
        "a disk alarm",
    ]
    assert "mend: make room" in rows.nth(0).inner_text()
    assert page.inner_text("summary") == "1 as they should be, 1 optional or not known"
    text = page.inner_text("main")
    for shown in (HOSTILE[0], HOSTILE[1], HOSTILE[2], "3 messages lie in flmq.dead", "1,234"):
        assert shown in text
    assert "of 900" in text
    assert page.locator("main img, main script, main svg").count() == 0
    page.fill("input[type=search]", "DEAD")
    assert page.locator("table").nth(3).locator("tbody tr").count() == 1
    assert view.errors == []


def test_the_view_says_how_to_name_a_broker(page: Page) -> None:
    view = OneView(page, "broker")
    view.answers["/api/broker"] = {**no_broker(), "refused": []}
    view.open()
    until(page, "document.querySelector('pre') !== null")
    assert page.inner_text("pre").startswith("flmq ui --broker amqp://")
    assert view.errors == []
