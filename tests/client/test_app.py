"""`start_client`: what it refuses at once, and that it returns when its job ends."""

from __future__ import annotations

import logging
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any

import pytest

from flmq.client import start_client
from flmq.client.app import InvalidClientArguments
from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerUnavailable,
    ClientIdInUse,
    InvalidClientId,
    UsageError,
)
from flmq.common.urls import parse_broker_url
from flmq.server import ServerConfig, start_server
from flmq.testing import fast_retries
from tests.end_to_end.federation import Nudge, fed_avg, in_thread, nudge

NOWHERE = "amqp://user:s3cret-pass@127.0.0.1:1/x"


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({}, InvalidClientArguments, "one of the two"),
        ({"client": Nudge("a"), "client_fn": nudge}, InvalidClientArguments, "one of the two"),
        ({"client": Nudge("a"), "root_certificates": b""}, InvalidClientArguments, "amqps://"),
        ({"client": Nudge("a"), "authentication_keys": ()}, InvalidClientArguments, "amqps://"),
        ({"client": Nudge("a"), "client_id": ""}, InvalidClientId, "client id '' is not usable"),
        ({"client": Nudge("a"), "client_id": "a..b"}, InvalidClientId, "'a..b' is not usable"),
        ({"client": Nudge("a"), "client_id": "x" * 65}, InvalidClientId, "is not usable"),
        ({"client": Nudge("a")}, BrokerUnavailable, "127.0.0.1:1"),
    ],
)
def test_a_client_that_cannot_start_says_why(
    arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as info:
        start_client(server_address=NOWHERE, **arguments)
    assert said in str(info.value)
    assert "s3cret" not in str(info.value)


def test_a_broker_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLMQ_BROKER_URL", raising=False)
    with pytest.raises(UsageError, match="FLMQ_BROKER_URL"):
        start_client(client=Nudge("a"))
    with pytest.raises(UsageError, match="FLMQ_BROKER_URL"):
        start_server(strategy=fed_avg(1))


def test_wrong_credentials_end_client_and_server_at_once(broker_url: str) -> None:
    good = parse_broker_url(broker_url)
    wrong = broker_url.replace(good.password, "s3cret-pass")
    for url in (wrong, good.with_vhost("nowhere").full):
        for begin in (
            lambda url=url: start_client(server_address=url, client=Nudge("a"), client_id="a"),
            lambda url=url: start_server(server_address=url, strategy=fed_avg(1)),
        ):
            with pytest.raises(BrokerAccessRefused) as info:
                begin()
            assert "s3cret" not in str(info.value)
            assert good.password not in str(info.value)


def test_start_client_returns_when_its_job_ends(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a program of Flower has it: without ids, with the broker's URL from the environment."""
    monkeypatch.setenv("FLMQ_BROKER_URL", broker_url)
    caplog.set_level(logging.INFO, logger="flmq")
    with fast_retries():
        clients = [
            in_thread(lambda: start_client(client=Nudge("a").to_client())),
            in_thread(lambda: start_client(client_fn=nudge, client_id="b")),
        ]
        history = start_server(
            config=ServerConfig(num_rounds=2), strategy=fed_avg(2, fraction_evaluate=1.0)
        )
        for client in clients:
            client.result(30)
    assert [server_round for server_round, _ in history.losses_distributed] == [1, 2]
    assert "made for this process" in caplog.text
    assert parse_broker_url(broker_url).password not in caplog.text


def test_start_client_refuses_an_id_that_is_in_use(broker_url: str) -> None:
    with fast_retries():
        first = in_thread(
            lambda: start_client(server_address=broker_url, client_fn=nudge, client_id="a")
        )
        second = in_thread(
            lambda: start_client(server_address=broker_url, client_fn=nudge, client_id="a")
        )
        done, serving = wait((first, second), timeout=30, return_when=FIRST_COMPLETED)
        (refused,) = done
        assert isinstance(refused.exception(0), ClientIdInUse)
        start_server(server_address=broker_url, strategy=fed_avg(1))
        serving.pop().result(30)
