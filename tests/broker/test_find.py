"""Where a broker comes from: in which order, and what is said when there is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flmq.broker import find
from flmq.broker.container import ContainerBroker, daemon_objection
from flmq.broker.find import Origin, obtain_broker
from flmq.broker.installed import NotInstalled
from flmq.broker.node import PrivateNode
from flmq.broker.probe import ask_broker
from flmq.common.errors import BrokerAccessRefused, BrokerNotFound, BrokerUnavailable
from flmq.common.urls import InvalidBrokerUrl, parse_broker_url

DEAD = "amqp://carol:s3cret@127.0.0.1:1/x"


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A machine without a Docker daemon, whatever this one has."""
    host = f"unix://{tmp_path / 'no.sock'}"
    monkeypatch.setenv("DOCKER_HOST", host)
    return host


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without rabbitmq-server, whatever this one has."""

    def missing(_: object) -> None:
        raise NotInstalled("no rabbitmq-server is installed on this machine")

    monkeypatch.setattr(find, "find_programs", missing)


def _telling(did: list[str], what: str) -> Callable[..., object]:
    """An ``__enter__`` or ``__exit__`` that notes that it was called, and returns the node."""

    def note(node: object, *_: object) -> object:
        did.append(what)
        return node if what == "start" else None

    return note


def test_a_given_url_comes_first(broker_url: str) -> None:
    with obtain_broker(broker_url, environ={"FLMQ_BROKER_URL": DEAD}) as broker:
        assert broker.origin is Origin.GIVEN
        assert broker.url == broker_url
        assert broker.node is None


def test_the_environment_comes_second(broker_url: str) -> None:
    with obtain_broker(environ={"FLMQ_BROKER_URL": broker_url}) as broker:
        assert broker.origin is Origin.GIVEN
        assert broker.url == broker_url


def test_a_given_url_that_does_not_answer_is_not_passed_over() -> None:
    with pytest.raises(BrokerUnavailable, match="no broker answers") as caught:
        obtain_broker(DEAD).__enter__()
    assert "s3cret" not in str(caught.value)


def test_a_wrong_password_is_said_without_the_password(broker_url: str) -> None:
    address = parse_broker_url(broker_url)
    wrong = broker_url.replace(address.password, "not-the-s3cret")
    with pytest.raises(BrokerAccessRefused, match="refuses the login of user") as caught:
        ask_broker(parse_broker_url(wrong))
    assert "s3cret" not in str(caught.value)


def test_a_missing_virtual_host_says_how_to_make_it(broker_url: str) -> None:
    nowhere = parse_broker_url(broker_url).with_vhost("nowhere")
    with pytest.raises(BrokerAccessRefused, match="rabbitmqctl add_vhost nowhere"):
        ask_broker(nowhere)


def test_a_bad_url_is_refused_at_once() -> None:
    with pytest.raises(InvalidBrokerUrl):
        obtain_broker("http://localhost").__enter__()


def test_the_local_server_comes_third_and_is_stopped_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The order alone: a real node of its own starts and goes in test_node.py.
    did: list[str] = []
    monkeypatch.setattr(PrivateNode, "__enter__", _telling(did, "start"))
    monkeypatch.setattr(PrivateNode, "__exit__", _telling(did, "stop"))
    with obtain_broker(environ={"PATH": os.environ["PATH"]}, on_step=did.append) as broker:
        assert broker.origin is Origin.LOCAL
        assert broker.node is not None
        assert broker.url == broker.node.url
        assert broker.url not in repr(broker)
    assert did == ["starting a private RabbitMQ node", "start", "stop"]


@pytest.mark.usefixtures("no_server")
def test_a_container_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []
    monkeypatch.setattr(find, "daemon_objection", lambda: None)
    monkeypatch.setattr(ContainerBroker, "__enter__", _telling(did, "start"))
    monkeypatch.setattr(ContainerBroker, "__exit__", _telling(did, "stop"))
    monkeypatch.setattr(ContainerBroker, "url", DEAD)
    monkeypatch.setattr(ContainerBroker, "shown_url", "shown")
    with obtain_broker(environ={"FLMQ_RABBITMQ_IMAGE": "mine:1"}, on_step=did.append) as broker:
        assert broker.origin is Origin.CONTAINER
        assert (broker.url, broker.shown_url) == (DEAD, "shown")
    assert did == ["starting a container of mine:1", "start", "stop"]


def test_a_server_that_was_named_and_is_not_there_is_not_passed_over() -> None:
    with pytest.raises(BrokerNotFound, match="FLMQ_RABBITMQ_SERVER names /nowhere"):
        obtain_broker(environ={"FLMQ_RABBITMQ_SERVER": "/nowhere"}).__enter__()


@pytest.mark.usefixtures("no_server")
def test_without_any_broker_it_says_how_to_get_one(no_docker: str) -> None:
    with pytest.raises(BrokerNotFound) as caught:
        obtain_broker(environ={}).__enter__()
    said = str(caught.value)
    for word in (
        "no rabbitmq-server is installed",
        no_docker,
        "apt-get install rabbitmq-server",
        "make broker",
        "FLMQ_BROKER_URL",
        "flmq[docker]",
        "--in-memory",
    ):
        assert word in said


def test_a_container_without_a_daemon_is_a_clear_error(no_docker: str) -> None:
    assert no_docker in (daemon_objection() or "")
    with pytest.raises(BrokerNotFound, match="no Docker-compatible daemon answers"):
        ContainerBroker().start()


def test_the_image_can_be_chosen() -> None:
    assert ContainerBroker(environ={}).image == "rabbitmq:4.2-management"
    assert ContainerBroker(environ={"FLMQ_RABBITMQ_IMAGE": "mine:1"}).image == "mine:1"
    assert ContainerBroker("other:2", environ={"FLMQ_RABBITMQ_IMAGE": "mine:1"}).image == "other:2"
