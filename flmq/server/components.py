"""The components of a server: strategy, configuration, client manager, or a whole `Server`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flmq.common.errors import UsageError
from flmq.common.typing import Parameters
from flmq.server.client_manager import ClientManager, SimpleClientManager
from flmq.server.rhythm.callbacks import Callback, RoundEnd
from flmq.server.rhythm.early_stopping import stop_rule
from flmq.server.server import Server
from flmq.server.server_config import ServerConfig
from flmq.server.strategy.asynchronous import Asynchronous
from flmq.server.strategy.strategy import Strategy
from flmq.server.stream_server import StreamServer
from flmq.server.streams.asynchronous_server import AsynchronousServer

__all__ = ["InvalidComponents", "ServerAppComponents", "build_server"]


class InvalidComponents(UsageError):
    """The components of a server contradict each other, or are of the wrong type."""


@dataclass
class ServerAppComponents:
    """Components of a server; each that is left out gets its default.

    A ``server`` has its own ``strategy`` and ``client_manager``: do not give these with it.
    """

    server: Server | None = None
    config: ServerConfig | None = None
    strategy: Strategy | None = None
    client_manager: ClientManager | None = None
    initial_parameters: Parameters | None = None
    """The initial model, instead of the strategy's: see `flmq.common.load_parameters`."""
    callbacks: Sequence[Callback | RoundEnd] = ()
    """Called as the run goes on (`flmq.server.rhythm.callbacks`)."""


def build_server(parts: ServerAppComponents) -> tuple[Server, ServerConfig]:
    """Build a server from its components.

    Raises:
        InvalidComponents: they contradict each other or have the wrong type.
    """
    _check_types(parts)
    config = ServerConfig() if parts.config is None else parts.config
    if parts.server is not None:
        for name in ("strategy", "client_manager"):
            if getattr(parts, name) is not None:
                raise InvalidComponents(
                    f"both server and {name} are given, and a server has its own {name}: drop one"
                )
        server = parts.server
    else:
        manager = SimpleClientManager() if parts.client_manager is None else parts.client_manager
        kind = AsynchronousServer if isinstance(parts.strategy, Asynchronous) else Server
        server = kind(client_manager=manager, strategy=parts.strategy)
    _check_loop(server, config)
    if parts.initial_parameters is not None:
        server.initial_parameters = parts.initial_parameters
    server.stop_rule = stop_rule(config.early_stopping)
    return server, config


def _check_loop(server: Server, config: ServerConfig) -> None:
    """Refuse a strategy without rounds in a loop of rounds, and settings of rounds for it."""
    if not isinstance(server.strategy, Asynchronous):
        return
    name = type(server.strategy).__name__
    if not isinstance(server, StreamServer):
        raise InvalidComponents(
            f"{name} runs without rounds, and a {type(server).__name__} runs rounds: give "
            f"strategy={name}(...) and no server"
        )
    for each in ("min_results", "target_results"):
        if getattr(config, each) is not None:
            raise InvalidComponents(
                f"{each} is for rounds, and {name} steps after every buffer_size updates: leave "
                "it out"
            )


def _check_types(parts: ServerAppComponents) -> None:
    expected: dict[str, type] = {
        "server": Server,
        "config": ServerConfig,
        "strategy": Strategy,
        "client_manager": ClientManager,
        "initial_parameters": Parameters,
    }
    for name, kind in expected.items():
        value = getattr(parts, name)
        if value is not None and not isinstance(value, kind):
            got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
            hint = f"; make one: {value.__name__}()" if isinstance(value, type) else ""
            raise InvalidComponents(f"{name} must be a flmq {kind.__name__}, and is {got}{hint}")
    if isinstance(parts.callbacks, str) or not isinstance(parts.callbacks, Sequence):
        got = type(parts.callbacks).__name__
        raise InvalidComponents(f"callbacks must be a list of callbacks, and is a {got}")
    for each in parts.callbacks:
        if isinstance(each, type):
            name = each.__name__
            raise InvalidComponents(f"a callback is the class {name}; make one: {name}()")
        if not isinstance(each, Callback) and not callable(each):
            raise InvalidComponents(
                f"a callback is a {type(each).__name__}: give a flmq Callback, or a function of "
                "round, parameters and metrics"
            )
