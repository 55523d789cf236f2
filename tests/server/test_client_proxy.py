"""The client proxy's contract: Flower's calls and arguments."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pytest

from flmq.common import GetPropertiesIns, GetPropertiesRes
from flmq.server.client_proxy import CannotAsk, ClientProxy
from flmq.wire.kinds import Kind, NotRegistered, register
from tests.server.proxies import OK, IdleProxy


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


@dataclass
class CountIns:
    above: int


@dataclass
class CountRes:
    count: int


register(Kind("test.count", CountIns, CountRes, call="count"))


class Counting(IdleProxy):
    def get_properties(  # type: ignore[override]
        self, ins: GetPropertiesIns, timeout: float | None, group_id: int | None = None
    ) -> GetPropertiesRes:
        return GetPropertiesRes(OK, {"timeout": timeout or 0.0, "group": group_id or 0})

    def count(self, ins: CountIns, timeout: float | None, group_id: int | None = None) -> CountRes:
        return CountRes(ins.above + 1)


def test_it_is_asked_with_any_kind_that_it_has_a_method_for() -> None:
    proxy = Counting("alice")
    assert proxy.ask(CountIns(3), None) == CountRes(4)
    asked = proxy.ask(GetPropertiesIns({}), 2.5, 7)
    assert asked == GetPropertiesRes(OK, {"timeout": 2.5, "group": 7})


def test_what_it_cannot_ask_is_named() -> None:
    with pytest.raises(CannotAsk, match="IdleProxy cannot ask with messages of kind test"):
        IdleProxy("alice").ask(CountIns(3), None)
    with pytest.raises(NotRegistered, match="str is of no kind of message"):
        IdleProxy("alice").ask("hello", None)
