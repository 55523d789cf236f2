"""What may stand for a client: an instance, a class, or a function of whatever it wants to know."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from flmq.client import Client, NumPyClient
from flmq.client.app import run_client
from flmq.client.context import ClientContext
from flmq.client.factory import Clients, InvalidClient, checked_source
from flmq.client.options import WorkerOptions
from flmq.common.errors import InvalidReturnValue
from flmq.server import ServerAppComponents
from flmq.server.context import ServerContext
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


class Own(FedAvg):
    pass


def server() -> FedAvg:
    return FedAvg()


def server_of_context(context: ServerContext):  # type: ignore[no-untyped-def]
    return FedAvg()


def unannotated():  # type: ignore[no-untyped-def]
    return FedAvg()


def unannotated_of_context(context):  # type: ignore[no-untyped-def]
    return FedAvg()


def server_of_a_strategy_of_its_own(context):  # type: ignore[no-untyped-def]
    return ServerAppComponents(strategy=Own())


def of_two(context, other):  # type: ignore[no-untyped-def]
    return Plain(context)


def of_a_keyword(context, *, other):  # type: ignore[no-untyped-def]
    return Plain(context)


def components() -> ServerAppComponents:
    return ServerAppComponents()


@pytest.mark.parametrize(
    "wrong",
    [
        server,
        server_of_context,
        unannotated,
        unannotated_of_context,
        server_of_a_strategy_of_its_own,
        of_two,
        of_a_keyword,
        components,
        FedAvg,
        FedAvg(),
        3,
        None,
    ],
)
def test_what_makes_no_client_is_refused_before_anything_is_asked(wrong: Any) -> None:
    with pytest.raises(InvalidClient, match="the client must be a flmq Client"):
        checked_source(wrong)
    with pytest.raises(InvalidClient, match="the client must be a flmq Client"):
        run_client("amqp://u:p@127.0.0.1:1/x", wrong, "a", {}, WorkerOptions())


def of_context(context: ClientContext) -> NumPyClient:
    return Plain(context)


def of_id(cid: str):  # type: ignore[no-untyped-def]
    return Plain(cid)


def unsaid(context):  # type: ignore[no-untyped-def]
    return Plain(context)


def unsaid_with_more(context, size=3, **more):  # type: ignore[no-untyped-def]
    return Plain(context)


def by_somebody_else(context):  # type: ignore[no-untyped-def]
    return _MADE[context]


_MADE: dict[object, NumPyClient] = {}


@pytest.mark.parametrize(
    "right",
    [
        Plain,
        Plain(),
        OfContext,
        OfId,
        of_context,
        of_id,
        unsaid,
        unsaid_with_more,
        by_somebody_else,
    ],
)
def test_what_may_make_a_client_is_left_as_it_is(right: Any) -> None:
    assert checked_source(right) is right


def test_a_function_of_nothing_is_tried_and_what_it_made_is_its_first_client() -> None:
    made: list[NumPyClient] = []

    def make() -> NumPyClient:
        made.append(Plain())
        return made[-1]

    clients = Clients(checked_source(make), _context)
    assert len(made) == 1
    first = clients.get("job", "a")
    assert getattr(first, "numpy_client", first) is made[0]
    clients.get("other", "a")
    assert len(made) == 2
