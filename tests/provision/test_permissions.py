"""What permissions match, and what not, as RabbitMQ searches with them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.provision.alternatives import any_of
from flmq.provision.permissions import (
    Rights,
    aggregator_rights,
    client_rights,
    link_rights,
    observer_rights,
    server_rights,
)

ALICE = client_rights("eu-west", ["alice.example.org"], aggregated=True)


def may(pattern: str, name: str) -> bool:
    return re.search(pattern, name) is not None


def topic(rights: Rights, exchange: str) -> tuple[str, str]:
    (found,) = (each for each in rights.topics if each.exchange == exchange)
    return found.write, found.read


@given(st.lists(st.text("ab01.-_/", min_size=1, max_size=5), min_size=1, max_size=30), st.data())
def test_alternatives_match_their_words_and_nothing_else(
    words: list[str], data: st.DataObject
) -> None:
    pattern = f"^{any_of(words)}$"
    assert all(may(pattern, word) for word in words)
    other = data.draw(st.text("ab01.-_/", max_size=6))
    assert may(pattern, other) == (other in words)


def test_a_pattern_of_a_thousand_ids_is_short() -> None:
    assert len(any_of(f"worker-{number}" for number in range(1000))) < 100


def test_a_client_reads_its_own_queues_and_the_models() -> None:
    for name in ("client.alice.example.org", "models"):
        assert may(ALICE.read, f"flmq.{name}")
    for name in (
        "client.bob", "client.aliceXexample.org", "client.alice.example.org.x", "models.bob",
        "client", "client.", "replies", "replies.job", "presence", "dead", "lock.job", "tasks",
        "tasks.local", "uploads.job", "aggregator.eu-west", "regional.eu-west", "modelsX",
    ):  # fmt: skip
        assert not may(ALICE.read, f"flmq.{name}")
    assert not may(ALICE.read, "x.flmq.models")


def test_a_client_declares_nothing_and_writes_to_no_queue() -> None:
    for name in ("flmq.client.alice.example.org", "x", "amq.default", "flmq.tasks"):
        assert not may(ALICE.configure, name)
        assert not may(ALICE.write, name)
    for name in ("dead", "models", "tasks", "tasks.local", "partials", "replies.job", "regional.x"):
        assert not may(ALICE.write, f"flmq.{name}")
    for name in ("replies", "uploads", "presence", "regional", "regional.uploads"):
        assert may(ALICE.write, f"flmq.{name}")
        assert topic(ALICE, f"flmq.{name}")[1] == "^$"


@pytest.mark.parametrize(
    ("exchange", "words"),
    [
        ("flmq.replies", ["job-1"]),
        ("flmq.uploads", ["job-1", "!size"]),
        ("flmq.regional", ["job-1"]),
        ("flmq.regional.uploads", ["job-1"]),
    ],
)
def test_a_client_publishes_under_its_own_key(exchange: str, words: list[str]) -> None:
    write, _ = topic(ALICE, exchange)
    for word in words:
        assert may(write, f"eu-west.alice/example/org.{word}")
        for other in ("eu-west.bob", "main.alice/example/org", "eu-west.alice.example.org", "x"):
            assert not may(write, f"{other}.{word}")
        assert not may(write, f"eu-west.alice/example/org.{word}.more")
        assert not may(write, f"x.eu-west.alice/example/org.{word}")
    for word in {"!all", "!aggregator", "!begun", "!size", "", "#", "*", "a.b"} - set(words):
        assert not may(write, f"eu-west.alice/example/org.{word}")


def test_a_client_sends_notes_to_itself_alone() -> None:
    alone = client_rights("eu-west", ["alice.example.org"])
    for rights in (ALICE, alone):
        write, _ = topic(rights, "flmq.regional")
        assert may(write, "eu-west.alice/example/org")
        for other in ("eu-west.bob", "eu-west.!all", "main.alice/example/org", "eu-west", "#"):
            assert not may(write, other)


def test_a_client_whose_site_has_no_aggregator_sends_none_replies() -> None:
    alone = client_rights("eu-west", ["alice.example.org"])
    assert not may(alone.write, "flmq.regional.uploads")
    assert not may(topic(alone, "flmq.regional")[0], "eu-west.alice/example/org.job-1")
    others = {right.exchange for right in alone.topics} - {"flmq.regional"}
    assert all(topic(alone, each) == topic(ALICE, each) for each in others)


def test_a_client_is_present_as_itself() -> None:
    write, _ = topic(ALICE, "flmq.presence")
    assert may(write, "eu-west.alice/example/org")
    for key in ("eu-west.bob", "eu-west.!aggregator", "eu-west.alice/example/org.x", "#", ""):
        assert not may(write, key)


def test_a_pool_speaks_for_its_clients_only() -> None:
    pool = client_rights("main", [f"w-{number}" for number in range(12)])
    assert may(pool.read, "flmq.client.w-11")
    assert not may(pool.read, "flmq.client.w-12")
    assert may(topic(pool, "flmq.replies")[0], "main.w-0.job")
    assert not may(topic(pool, "flmq.replies")[0], "main.w-111.job")


def test_a_server_has_its_own_jobs() -> None:
    server = server_rights(["mnist-*", "one"])
    for job in ("mnist-", "mnist-1", "one"):
        for what in ("lock", "presence", "replies", "uploads"):
            name = f"flmq.{what}.{job}"
            assert may(server.configure, name)
            assert may(server.write, name)
            assert may(server.read, name)
        assert may(topic(server, "flmq.models")[0], job)
        assert may(topic(server, "flmq.replies")[1], f"*.*.{job}")
    for job in ("two", "one2", "mnist-1.x", "aggregator.eu-west"):
        assert not may(server.configure, f"flmq.lock.{job}")
        assert not may(topic(server, "flmq.models")[0], job)
        assert not may(topic(server, "flmq.uploads")[1], f"*.*.{job}")
    for key in ("#", "*.*.*", "*.*.#"):
        assert not may(topic(server, "flmq.replies")[1], key)
    for name in ("client.alice", "replies", "uploads", "presence", "models.alice", "tasks.local"):
        assert not may(server.configure, f"flmq.{name}")
        assert not may(server.write, f"flmq.{name}")
    assert not may(server.read, "flmq.client.alice")
    assert may(server_rights(["*"]).configure, "flmq.lock.any-job")


def test_an_aggregator_has_its_own_site() -> None:
    rights = aggregator_rights("eu", "main", ["eu-west", "eu-east"])
    for name in ("aggregator.eu", "regional.eu", "regional.uploads.eu", "partials.eu", "models"):
        assert may(rights.read, f"flmq.{name}")
        assert not may(rights.configure, f"flmq.{name}")
    assert may(rights.configure, "flmq.lock.aggregator.eu")
    for name in ("aggregator.us", "regional.us", "client.alice", "replies.job", "replies"):
        assert not may(rights.read, f"flmq.{name}")
    for exchange in ("flmq.replies", "flmq.uploads"):
        assert may(topic(rights, exchange)[0], "eu.alice.job")
        assert may(topic(rights, exchange)[0], "eu.!aggregator.job")
        assert not may(topic(rights, exchange)[0], "us.alice.job")
    assert may(topic(rights, "flmq.partials")[0], "main.eu.job")
    assert not may(topic(rights, "flmq.partials")[0], "main.us.job")
    assert may(topic(rights, "flmq.tasks")[0], "eu-west.!aggregator")
    for key in ("eu-west.alice", "us.!aggregator", "eu-west.!all"):
        assert not may(topic(rights, "flmq.tasks")[0], key)
    assert topic(aggregator_rights("eu"), "flmq.tasks")[0] == "^$"


def test_observers_and_links_are_kept_to_theirs() -> None:
    assert observer_rights() == Rights()
    links = link_rights(["flmq.tasks", "flmq.models"])
    buffer = "federation: flmq.tasks -> rabbit@eu"
    assert may(links.configure, buffer)
    assert may(links.read, "flmq.tasks")
    for name in ("flmq.replies", "flmq.client.alice", "flmq.dead"):
        assert not may(links.read, name)
        assert not may(links.write, name)
