"""Which strategies' replies are combined as they come: those that say so, and who says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from flmq.server.strategy import FedAvg, Strategy
from flmq.server.strategy.combine import AllReplies, Combine
from flmq.server.strategy.streaming import says_it_streams


class OwnFit(FedAvg):
    """As Flower's programs do: it may look at what clients sent."""

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        return super().aggregate_fit(server_round, results, failures)


class OwnFitThatStreams(OwnFit):
    streams = True

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        return super().aggregate_fit(server_round, results, failures)


class OwnFitAndCombine(FedAvg):
    def combine(self, server_round: int, parameters: Any) -> Combine:
        return AllReplies()

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        return None, {}


class OwnMetrics(FedAvg):
    def aggregate_metrics(self, results: Any, aggregation_fn: Any) -> Any:
        return {}


class OwnUpdate(FedAvg):
    def update(self, server_round: int, parameters: Any, combined: Any) -> Any:
        return combined.parameters()


class OwnCombine(OwnUpdate):
    def combine(self, server_round: int, parameters: Any) -> Combine:
        return AllReplies()


class CombineOverOwnFit(OwnFit):
    """Its base looks at whole replies."""

    def combine(self, server_round: int, parameters: Any) -> Combine:
        return AllReplies()


class Mixin:
    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        return None, {}


class WithMixin(Mixin, FedAvg):
    pass


class Below(OwnFitThatStreams):
    pass


class OwnFitBelow(OwnFitThatStreams):
    """What its base said of its own method does not hold for this one."""

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        return None, {}


@dataclass(kw_only=True, eq=False, repr=False)
class SaidByAnOption(OwnFit):
    streams: bool = True  # type: ignore[misc]


STREAMED = (FedAvg, OwnMetrics, OwnUpdate, OwnCombine, OwnFitThatStreams, OwnFitAndCombine, Below)
WHOLE = (OwnFit, WithMixin, CombineOverOwnFit, OwnFitBelow)


@pytest.mark.parametrize("kind", STREAMED)
def test_these_are_combined_as_they_come(kind: type[Strategy]) -> None:
    assert says_it_streams(kind())


@pytest.mark.parametrize("kind", WHOLE)
def test_these_get_whole_replies(kind: type[Strategy]) -> None:
    assert not says_it_streams(kind())


def test_an_object_may_say_it_for_itself() -> None:
    assert says_it_streams(SaidByAnOption())
    assert not says_it_streams(SaidByAnOption(streams=False))


def test_a_function_put_in_the_place_of_the_method_gets_whole_replies() -> None:
    patched = FedAvg()
    patched.aggregate_fit = lambda *_: (None, {})  # type: ignore[method-assign]
    assert not says_it_streams(patched)
    patched.streams = True  # type: ignore[misc]
    assert says_it_streams(patched)


def test_so_does_one_put_into_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped: Callable[..., Any] = OwnUpdate.aggregate_fit
    monkeypatch.setattr(OwnUpdate, "aggregate_fit", lambda *args: wrapped(*args), raising=False)
    assert not says_it_streams(OwnUpdate())
