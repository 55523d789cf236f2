"""The client proxy's contract: Flower's calls and arguments."""

from __future__ import annotations

import inspect

import pytest

from flmq.server.client_proxy import ClientProxy
from tests.server.proxies import IdleProxy


@pytest.mark.parametrize(
    "call", ["get_properties", "get_parameters", "fit", "evaluate", "reconnect"]
)
def test_it_has_flowers_calls(call: str) -> None:
    function = getattr(ClientProxy, call)
    assert function.__isabstractmethod__
    assert list(inspect.signature(function).parameters) == ["self", "ins", "timeout", "group_id"]


def test_it_has_an_id_and_no_properties_yet() -> None:
    proxy = IdleProxy("alice")
    assert (proxy.cid, proxy.properties) == ("alice", {})
    assert repr(proxy) == "IdleProxy('alice')"
