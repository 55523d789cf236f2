"""The programming model: six methods with Flower's names and arguments."""

from __future__ import annotations

import inspect

import pytest

import flmq.server.strategy
from flmq.server.strategy import FedAvg, ReplyCheck, Strategy

METHODS = {
    "initialize_parameters": ["client_manager"],
    "configure_fit": ["server_round", "parameters", "client_manager"],
    "aggregate_fit": ["server_round", "results", "failures"],
    "configure_evaluate": ["server_round", "parameters", "client_manager"],
    "aggregate_evaluate": ["server_round", "results", "failures"],
    "evaluate": ["server_round", "parameters"],
}


def test_it_has_flowers_six_abstract_methods_and_no_others() -> None:
    assert Strategy.__abstractmethods__ == METHODS.keys()


@pytest.mark.parametrize("owner", [Strategy, FedAvg])
@pytest.mark.parametrize("method", METHODS)
def test_arguments_are_flowers(owner: type[Strategy], method: str) -> None:
    parameters = inspect.signature(getattr(owner, method)).parameters
    assert list(parameters)[1:] == METHODS[method]
    assert all(p.default is inspect.Parameter.empty for p in parameters.values())


def test_every_method_says_what_it_gets_and_returns() -> None:
    for method in METHODS:
        documentation = inspect.getdoc(getattr(Strategy, method))
        assert documentation is not None
        assert "Args:" in documentation
        assert "Returns:" in documentation


def test_replies_are_held_against_what_was_sent_unless_a_strategy_asks_for_less() -> None:
    class Lenient(FedAvg):
        reply_check = ReplyCheck.NONE

    assert FedAvg().reply_check is ReplyCheck.LIKE_SENT
    assert Lenient().reply_check is ReplyCheck.NONE


def test_public_names_are_sorted_and_there() -> None:
    names = flmq.server.strategy.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(flmq.server.strategy, name) for name in names)
