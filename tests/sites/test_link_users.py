"""Brokers that log in at each other as users whom `flmq provision` made, and may do no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pika
import pytest
from typer.testing import CliRunner

from flmq.broker.polling import poll_until
from flmq.cli.main import app
from flmq.common.urls import parse_broker_url
from flmq.transport import (
    REPLIES,
    TASKS,
    Address,
    Message,
    PublishOutcome,
    client_queue,
    job_topology,
    open_transport,
    replies_queue,
    reply_key,
    task_key,
)
from tests.sites.brokers import Brokers

VHOST = "linked"
SITES = {"main": None, "eu": "main"}
PARTIES = """
[[link]]
site = "main"

[[link]]
site = "eu"

[[client]]
ids = ["linked-alice"]
site = "eu"

[[server]]
user = "linked-server"
"""


def declared(brokers: Brokers) -> tuple[str, dict[str, str]]:
    """A file in which each broker is known to others as somebody else than to who provisions."""
    lines, environ = [], {}
    for name, parent in SITES.items():
        node = brokers.nodes[name]
        api = node.management
        above = f'parent = "{parent}"\n' if parent else ""
        lines.append(
            f'[[site]]\nname = "{name}"\n{above}vhost = "{VHOST}"\nurl = "${{URL_{name}}}"\n'
            f'link_url = "${{LINK_{name}}}"\nmanagement_url = "${{API_{name}}}"\n'
        )
        environ[f"URL_{name}"] = node.url
        environ[f"LINK_{name}"] = f"amqp://link-{name}:of-{name}@127.0.0.1:{node.ports.amqp}"
        environ[f"API_{name}"] = f"http://{api.user}:{api.password}@{api.host}:{api.port}"
    return "\n".join(lines) + PARTIES, environ


def test_links_run_as_users_who_may_fetch_what_crosses_and_nothing_else(
    brokers: Brokers, tmp_path: Path
) -> None:
    file = tmp_path / "federation.toml"
    text, environ = declared(brokers)
    file.write_text(text)
    where = ["--file", str(file), "--passwords", str(tmp_path / "passwords")]

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["provision", *words, *where], env=environ)
        return done.exit_code, f"{done.output}{done.exception or ''}"

    status, said = run("--yes")
    assert status == 0, said
    assert "of-main" not in said
    assert not list((tmp_path / "passwords").glob("link-*"))
    assert poll_until(lambda: run("check")[0] == 0, 60.0, every=0.5), run("check")[1]
    assert run("--yes") == (0, "nothing to change\n")
    status, said = run("rotate", "link-eu")
    assert status != 0
    assert "link_url" in said

    # What crosses, crosses: a task down, and a reply, with its sender, up.
    def url(site: str, user: str = "", password: str = "") -> str:
        made = parse_broker_url(brokers.nodes[site].url).with_vhost(VHOST)
        return (replace(made, user=user, password=password) if user else made).full

    with (
        open_transport(url("main"), name="test") as hub,
        open_transport(
            url(
                "eu",
                "linked-alice",
                (tmp_path / "passwords" / "linked-alice.password").read_text().strip(),
            ),
            name="alice",
        ) as alice,
    ):
        hub.declare(job_topology("job"))
        consumer = alice.consumer([client_queue("linked-alice")], prefetch=1)
        task = Address(TASKS, task_key("eu", "linked-alice"))
        sent = hub.publisher().publish(task, Message(b"task")).result(20.0)
        assert sent is PublishOutcome.CONFIRMED
        there = consumer.receive(20.0)
        assert there is not None
        assert there.message.body == b"task"
        consumer.ack(there)
        reply = Address(REPLIES, reply_key("eu", "linked-alice", "job"))
        publisher = alice.publisher()

        def routed() -> bool:
            said = publisher.publish(reply, Message(b"reply", user_id="linked-alice"))
            return said.result(20.0) is PublishOutcome.CONFIRMED

        assert poll_until(routed, 20.0)
        up = hub.consumer([replies_queue("job")], prefetch=1).receive(20.0)
        assert up is not None
        assert up.message.user_id == "linked-alice"

    # Who has the link's password can do no more than that.
    login = pika.URLParameters(url("eu", "link-eu", "of-eu"))
    attempts: tuple[Callable[[Any], object], ...] = (
        lambda channel: channel.basic_get(client_queue("linked-alice")),
        lambda channel: channel.queue_purge(client_queue("linked-alice")),
        lambda channel: channel.queue_declare("mine"),
        lambda channel: channel.queue_bind(client_queue("linked-alice"), REPLIES, "#"),
        lambda channel: channel.basic_publish(TASKS, "eu.linked-alice", b"forged", mandatory=True),
        lambda channel: channel.basic_publish(
            REPLIES, "eu.linked-alice.job", b"forged", mandatory=True
        ),
        lambda channel: channel.queue_bind("federation: flmq.replies -> x", TASKS, "#"),
    )
    for attempt in attempts:
        connection = pika.BlockingConnection(login)
        channel: Any = connection.channel()
        channel.confirm_delivery()
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            attempt(channel)
        assert refused.value.reply_code == 403
        connection.close()
