"""Parts of a server: put together where they fit, refused where they do not."""

from __future__ import annotations

from typing import Any

import pytest

from flmq.server import Server, ServerConfig, SimpleClientManager, start_server
from flmq.server.components import InvalidComponents, ServerAppComponents, build_server
from flmq.server.strategy import FedAvg


def test_what_is_left_out_has_its_default() -> None:
    server, config = build_server(ServerAppComponents())
    assert isinstance(server.strategy, FedAvg)
    assert isinstance(server.client_manager(), SimpleClientManager)
    assert config == ServerConfig()


def test_parts_are_used_as_they_are() -> None:
    strategy, manager, config = FedAvg(), SimpleClientManager(), ServerConfig(3)
    parts = ServerAppComponents(strategy=strategy, client_manager=manager, config=config)
    server, same = build_server(parts)
    assert server.strategy is strategy
    assert server.client_manager() is manager
    assert same is config
    assert build_server(ServerAppComponents(server=server))[0] is server


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"strategy": FedAvg}, "strategy must be a flmq Strategy, and is the class FedAvg; make"),
        ({"strategy": "FedAvg"}, "strategy must be a flmq Strategy, and is str"),
        ({"config": {"num_rounds": 3}}, "config must be a flmq ServerConfig, and is dict"),
        ({"config": 3}, "config must be a flmq ServerConfig, and is int"),
        ({"client_manager": []}, "client_manager must be a flmq ClientManager, and is list"),
        ({"server": FedAvg()}, "server must be a flmq Server, and is FedAvg"),
    ],
)
def test_a_part_of_the_wrong_type_is_named(parts: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidComponents) as info:
        build_server(ServerAppComponents(**parts))
    assert said in str(info.value)
    with pytest.raises(InvalidComponents):  # before anything is asked of a broker
        start_server(server_address="amqp://u:p@127.0.0.1:1/x", **parts)


@pytest.mark.parametrize("name", ["strategy", "client_manager"])
def test_a_server_has_parts_of_its_own(name: str) -> None:
    server = Server(client_manager=SimpleClientManager())
    part: dict[str, Any] = {"strategy": FedAvg(), "client_manager": SimpleClientManager()}
    with pytest.raises(InvalidComponents, match=f"both server and {name} are given"):
        build_server(ServerAppComponents(server=server, **{name: part[name]}))


def test_certificates_are_the_urls_affair() -> None:
    with pytest.raises(InvalidComponents, match="amqps://"):
        start_server(server_address="amqps://u:p@h/x", certificates=(b"", b"", b""))
