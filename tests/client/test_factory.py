"""What may stand for a client: an instance, a class, or a function of whatever it wants to know."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from flmq.client import Client, NumPyClient
from flmq.client.context import ClientContext
from flmq.client.factory import Clients, InvalidClient
from flmq.common.errors import InvalidReturnValue
from flmq.server.strategy import FedAvg


class Plain(NumPyClient):
    """Knows what it was made with."""

    def __init__(self, given: object = None) -> None:
        self.given = given


class OfContext(Client):
    def __init__(self, context: ClientContext) -> None:
        self.given = context


class OfId(Client):
    def __init__(self, cid: str) -> None:
        self.given = cid


def _context(job: str, client_id: str) -> ClientContext:
    return ClientContext(job, client_id, "main", {"gpu": True})


def _made(source: Any) -> Any:
    client = Clients(source, _context).get("job", "a")
    return getattr(client, "numpy_client", client)


def test_an_instance_is_the_client_of_every_job_and_id() -> None:
    for instance in (Plain(), OfId("x")):
        assert _made(instance) is instance


def test_a_class_is_made_with_what_it_asks_for() -> None:
    assert _made(OfContext).given == _context("job", "a")
    assert _made(OfId).given == "a"
    assert _made(Plain).given is None  # its default is its own


def test_a_function_gets_context_id_or_nothing() -> None:
    def of_context(context: ClientContext) -> NumPyClient:
        return Plain(context)

    def of_anything(anything) -> NumPyClient:  # type: ignore[no-untyped-def]
        return Plain(anything)

    def of_cid(cid):  # type: ignore[no-untyped-def]
        return Plain(cid).to_client()

    def of_text(name: str) -> NumPyClient:
        return Plain(name)

    assert _made(of_context).given == _made(of_anything).given == _context("job", "a")
    assert _made(of_cid).given == _made(of_text).given == "a"
    assert _made(lambda: Plain("nothing")).given == "nothing"


@pytest.mark.parametrize("thing", [None, 3, "client", Plain, object()])
def test_what_a_function_returns_must_be_a_client(thing: object) -> None:
    with pytest.raises(InvalidReturnValue, match="a client is expected, not"):
        _made(lambda: thing)


@pytest.mark.parametrize(
    ("thing", "named"),
    [(3, "a int"), (FedAvg(), "a FedAvg"), (FedAvg, "the class FedAvg"), (None, "a NoneType")],
)
def test_what_cannot_be_a_client_is_refused_before_any_task(thing: Any, named: str) -> None:
    with pytest.raises(InvalidClient, match=f"and is {named}"):
        Clients(thing, _context)


def test_a_client_lives_as_long_as_its_job() -> None:
    clients = Clients(lambda context: Plain(context), _context)
    first = clients.get("job", "a")
    assert clients.get("job", "a") is first
    assert clients.get("job", "b") is not first
    assert clients.get("other", "a") is not first
    other = clients.get("other", "a")
    clients.forget("job")
    assert clients.get("job", "a") is not first
    assert clients.get("other", "a") is other


def test_without_keeping_a_client_is_made_for_each_task() -> None:
    clients = Clients(lambda context: Plain(context), _context, keep=False)
    assert clients.get("job", "a") is not clients.get("job", "a")


def test_a_factory_that_raised_is_called_again() -> None:
    calls = []

    def factory(context: ClientContext) -> NumPyClient:
        calls.append(context)
        if len(calls) == 1:
            raise OSError("the disk is not mounted yet")
        return Plain()

    clients = Clients(factory, _context)
    with pytest.raises(OSError, match="not mounted"):
        clients.get("job", "a")
    clients.get("job", "a")
    assert len(calls) == 2


def test_slow_factories_of_two_clients_do_not_wait_for_each_other() -> None:
    barrier = threading.Barrier(2, timeout=10)

    def factory(context: ClientContext) -> NumPyClient:
        barrier.wait()
        return Plain()

    clients = Clients(factory, _context)
    threads = [threading.Thread(target=clients.get, args=("job", cid)) for cid in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not barrier.broken
