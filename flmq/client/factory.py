"""Create a `Client` from what a user gives: an instance, a class or a function."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Protocol, cast

from flmq.client.client import Client
from flmq.client.context import ClientContext
from flmq.client.numpy_client import NumPyClient
from flmq.client.typing import ClientFn, ClientLike, to_client
from flmq.common.errors import UsageError
from flmq.wire import Res, Task

__all__ = ["ClientSource", "Clients", "Elsewhere", "InvalidClient", "Maker", "checked_source"]

ClientSource = ClientLike | type[Client] | type[NumPyClient] | ClientFn
"""A client, its class, or a function of a `ClientContext` (or of nothing) that creates one."""


class InvalidClient(UsageError):
    """The given object is neither a client, nor something that creates one."""

    def __init__(self, got: str) -> None:
        """Say what it is instead."""
        super().__init__(
            f"the client must be a flmq Client or NumPyClient, its class, or a function that makes "
            f"one, and is {got}"
        )


def checked_source(source: ClientSource) -> ClientSource:
    """Return ``source``; refuse, before connecting to a broker, what cannot be a client.

    A function without parameters is called to check it, as its result depends on no task; the
    result becomes its first client. A function of a context is checked by its parameters, its
    annotations and by the names in its code, as its result depends on the job.

    Raises:
        InvalidClient: it is not a client, or does not create one.
    """
    _check_kind(source)
    if isinstance(source, ClientLike | type):
        return source
    try:
        signature = _signature(source)
    except ValueError:  # a function written in C may have none
        return source
    _refuse_servers(source, "returns", signature.return_annotation)
    if signature.parameters:
        for parameter in signature.parameters.values():
            _refuse_servers(source, "takes", parameter.annotation)
        _refuse_more_arguments(source, signature)
        _refuse_servers_code(source)
        return source
    call = cast("Callable[[], ClientLike]", source)
    made = [call()]
    if not isinstance(made[0], ClientLike):
        raise InvalidClient(f"{_name(source)}, which made a {type(made[0]).__name__}")
    return lambda: made.pop() if made else call()


def _check_kind(source: object) -> None:
    if not isinstance(source, ClientLike) and not callable(source):
        raise InvalidClient(f"a {type(source).__name__}")
    if isinstance(source, type) and not issubclass(source, Client | NumPyClient):
        raise InvalidClient(f"the class {source.__name__}")


def _signature(source: Callable[..., object]) -> inspect.Signature:
    try:
        return inspect.signature(source, eval_str=True)
    except (NameError, SyntaxError, TypeError):  # annotations of undefined names
        return inspect.signature(source)


def _refuse_servers(source: object, verb: str, annotated: object) -> None:
    """Refuse a function whose annotations say that it is the server's."""
    if isinstance(annotated, type) and _is_of("flmq.server", annotated.__mro__):
        raise InvalidClient(f"{_name(source)}, which {verb} {getattr(annotated, '__name__', '')}")


def _refuse_more_arguments(source: object, signature: inspect.Signature) -> None:
    """Refuse a function that cannot be called with the context alone."""
    try:
        signature.bind(None)
    except TypeError as error:
        raise InvalidClient(
            f"{_name(source)}, which cannot be called with a ClientContext alone ({error})"
        ) from None


def _refuse_servers_code(source: object) -> None:
    """Refuse a function that uses something of the server's, and nothing of the client's."""
    if not inspect.isfunction(source):
        return
    used = [_kinds_of(thing) for thing in inspect.getclosurevars(source).globals.values()]
    if any(_is_of("flmq.client", kinds) for kinds in used):
        return
    for kinds in used:
        if _is_of("flmq.server", kinds):
            raise InvalidClient(f"{_name(source)}, which uses the server's {kinds[0].__name__}")


def _kinds_of(thing: object) -> tuple[type, ...]:
    """Return the class ``thing``, or that of ``thing``, and those it inherits from."""
    return (thing if isinstance(thing, type) else type(thing)).__mro__


def _is_of(package: str, kinds: tuple[type, ...]) -> bool:
    return any(f"{kind.__module__}.".startswith(f"{package}.") for kind in kinds)


def _name(source: object) -> str:
    return getattr(source, "__name__", type(source).__name__)


_Arguments = Callable[[ClientContext], tuple[object, ...]]
"""Returns the arguments for a context."""


class Maker:
    """Create clients from a source."""

    def __init__(self, source: ClientSource) -> None:
        """Create them from ``source``."""
        self._source = source
        self._arguments: _Arguments | None = None
        """What it is called with; None until it has been."""

    def make(self, context: ClientContext) -> Client:
        """Create the client of ``context``; exceptions of the user's code pass through."""
        source = self._source
        if isinstance(source, ClientLike) or not callable(source):
            return to_client(source)
        made: Callable[..., object] = source
        if self._arguments is None:
            self._arguments = _arguments_of(made)
        return to_client(made(*self._arguments(context)))


def _arguments_of(source: Callable[..., object]) -> _Arguments:
    """Return what ``source`` takes: the context, the client id (Flower's ``cid``) or nothing.

    A class whose arguments all have defaults is called without arguments, as they are its own.
    """
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    first = next(
        (p for p in inspect.signature(source).parameters.values() if p.kind in kinds), None
    )
    if first is None:
        return lambda context: ()
    if isinstance(source, type) and first.default is not inspect.Parameter.empty:
        return lambda context: ()
    if first.name == "cid" or first.annotation in (str, "str"):
        return lambda context: (context.client_id,)
    return lambda context: (context,)


class Elsewhere(Protocol):
    """Where clients' code is called instead of on the worker's threads: a pool of processes."""

    def call(self, task: Task, context: ClientContext) -> Res:
        """Have ``task``, with its model, answered by the client of ``context``. Blocks."""


class Clients:
    """The clients of a worker, created when needed, one per job and client id. Thread-safe."""

    def __init__(
        self,
        source: ClientSource,
        make_context: Callable[[str, str], ClientContext],
        *,
        keep: bool = True,
        pool: Elsewhere | None = None,
    ) -> None:
        """Create clients from ``source``; without ``keep``, a new one for each task.

        With a ``pool``, clients are created and called there.

        Raises:
            InvalidClient: ``source`` is neither a client, nor its class, nor a function.
        """
        _check_kind(source)
        self._maker = Maker(source)
        self._make_context = make_context
        self._keep = keep
        self._pool = pool
        self._made: dict[tuple[str, str], Client] = {}
        self._lock = threading.Lock()

    def get(self, job: str, client_id: str) -> Client:
        """Return the client of ``job`` and ``client_id``; errors of its factory pass through."""
        with self._lock:
            made = self._made.get((job, client_id))
        if made is None:
            made = self._maker.make(self._make_context(job, client_id))
            if self._keep:
                with self._lock:
                    self._made[job, client_id] = made
        return made

    def elsewhere(self, task: Task) -> Callable[[Task], Res] | None:
        """Return what has the pool answer ``task``; None if there is no pool."""
        if (pool := self._pool) is None:
            return None
        context = self._make_context(task.job, task.client_id)
        return lambda loaded: pool.call(loaded, context)

    def forget(self, job: str) -> None:
        """Drop the clients of a job that is over."""
        with self._lock:
            for key in [key for key in self._made if key[0] == job]:
                del self._made[key]
