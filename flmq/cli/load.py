"""Load a user's app by its name, ``module:attribute``, and create a server or client from it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from flmq.client.client import Client
from flmq.client.factory import ClientSource
from flmq.client.numpy_client import NumPyClient
from flmq.common.errors import AppLoadError
from flmq.common.failure_text import named_error
from flmq.common.tracebacks import user_traceback
from flmq.server.components import ServerAppComponents
from flmq.server.context import ServerContext
from flmq.server.server import Server
from flmq.server.strategy.strategy import Strategy

__all__ = ["load_client", "load_server"]

_SERVER_EXAMPLE = (
    "    def server(context: ServerContext) -> ServerAppComponents:\n"
    "        return ServerAppComponents(strategy=FedAvg(), config=ServerConfig(num_rounds=10))"
)
_CLIENT_EXAMPLE = (
    "    def client(context: ClientContext) -> Client:\n"
    "        return MyClient(context.client_id).to_client()"
)


def load_client(app: str) -> ClientSource:
    """Import the client that ``app`` names: a client, its class, or a function that creates one.

    Raises:
        AppLoadError: it cannot be imported, or is none of these.
    """
    thing = _load(app)
    made_by_class = isinstance(thing, type) and issubclass(thing, Client | NumPyClient)
    if isinstance(thing, Client | NumPyClient) or made_by_class or inspect.isroutine(thing):
        return cast(ClientSource, thing)
    raise AppLoadError(
        f"{app} is a {type(thing).__name__}; a client, a client's class, or a function that makes "
        f"one is expected:\n\n{_CLIENT_EXAMPLE}"
    )


def load_server(app: str, context: ServerContext) -> ServerAppComponents:
    """Import the server that ``app`` names; if it is a function, call it.

    It must be, or return, `ServerAppComponents`, a `Strategy` or a `Server`. Exceptions of the
    user's function pass through.

    Raises:
        AppLoadError: it cannot be imported, or is none of these.
    """
    thing = _load(app)
    made = _call(thing, context) if callable(thing) and not _is_server(thing) else thing
    match made:
        case ServerAppComponents():
            return made
        case Strategy():
            return ServerAppComponents(strategy=made)
        case Server():
            return ServerAppComponents(server=made)
    verb = "returned" if made is not thing else "is"
    raise AppLoadError(
        f"{app} {verb} a {type(made).__name__}; ServerAppComponents, a Strategy, a Server, or a "
        f"function that makes one is expected:\n\n{_SERVER_EXAMPLE}"
    )


def _is_server(thing: object) -> bool:
    return isinstance(thing, ServerAppComponents | Strategy | Server)


def _call(make: Callable[..., Any], context: ServerContext) -> object:
    """Call a factory, with the context if it has a parameter without default for it."""
    parameters = inspect.signature(make).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return make(context) if needed else make()


def _load(app: str) -> object:
    module_name, colon, attribute = app.rpartition(":")
    if not colon or not module_name or not attribute:
        raise AppLoadError(
            f"{app!r} names no app: give module:name, as in app:server for the name 'server' in "
            "app.py"
        )
    module = _import(module_name, app)
    try:
        thing: object = module
        for name in attribute.split("."):
            thing = getattr(thing, name)
    except AttributeError:
        names = sorted(name for name in vars(module) if not name.startswith("_"))
        raise AppLoadError(
            f"{app}: module {module_name!r} has no {attribute!r}; it has: {', '.join(names[:30])}"
        ) from None
    return thing


def _import(name: str, app: str) -> ModuleType:
    """Import a module by its dotted name or its file, as ``python`` would from here."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return _import_file(Path(name)) if name.endswith(".py") else importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not (name + ".").startswith(error.name + "."):
            raise AppLoadError(
                f"{app}: module {name!r} imports {error.name!r}, which is not installed here:\n\n"
                f"{user_traceback(error)}"
            ) from error
        raise AppLoadError(
            f"{app}: there is no module {name!r}; looked in {here} and in the installed packages"
        ) from error
    except Exception as error:
        raise AppLoadError(
            f"{app}: importing {name!r} failed: {named_error(error)}\n\n{user_traceback(error)}"
        ) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModuleNotFoundError(f"no file {path}", name=str(path))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
