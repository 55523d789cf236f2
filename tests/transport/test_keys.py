"""Routing keys of clients: each key is of one client, and says which."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flmq.transport import (
    aggregator_key,
    client_of_key,
    own_model_key,
    presence_key,
    reply_key,
    task_key,
)
from flmq.transport.memory.routing import topic_matches

names = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
client_ids = st.from_regex(r"[A-Za-z0-9_-]{1,6}(\.[A-Za-z0-9_-]{1,6}){0,4}", fullmatch=True)


@given(names, client_ids, names)
def test_each_key_says_whose_it_is(site: str, client_id: str, job: str) -> None:
    keys = [
        task_key(site, client_id),
        presence_key(site, client_id),
        own_model_key(site, client_id),
        reply_key(site, client_id, job),
    ]
    assert [client_of_key(key) for key in keys] == [client_id] * 4


@given(names, client_ids, names)
def test_a_job_takes_the_replies_of_clients_with_dots_and_of_no_other_job(
    site: str, client_id: str, job: str
) -> None:
    key = reply_key(site, client_id, job)
    assert topic_matches(f"*.*.{job}", key)
    assert not topic_matches(f"*.*.{job}x", key)


@given(names, client_ids, client_ids, names)
def test_no_two_clients_share_a_key(site: str, one: str, other: str, job: str) -> None:
    ours, theirs = (
        {
            task_key(site, client_id),
            presence_key(site, client_id),
            own_model_key(site, client_id),
            reply_key(site, client_id, job),
        }
        for client_id in (one, other)
    )
    assert one == other or not ours & theirs


def test_an_aggregator_is_no_client() -> None:
    assert client_of_key(aggregator_key("eu")) == "!aggregator"
    assert client_of_key(reply_key("eu", "!aggregator", "job")) == "!aggregator"


def test_a_key_without_a_client_names_none() -> None:
    assert [client_of_key(key) for key in ("", "main", "main.", "..")] == [None] * 4
