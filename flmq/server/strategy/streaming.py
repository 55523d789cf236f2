"""Replies that are combined as they come: whether a strategy can do with that, and what it gets."""

from __future__ import annotations

from collections.abc import Iterable

from flmq.common.typing import FitRes
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy.combine import Combine

__all__ = ["StreamedResults", "says_it_streams"]


class StreamedResults(list[tuple[ClientProxy, FitRes]]):
    """``results`` whose parameters went to ``combine`` as they came: those of each are empty."""

    def __init__(self, results: Iterable[tuple[ClientProxy, FitRes]], combine: Combine) -> None:
        """Hold the replies, and what took in their parameters."""
        super().__init__(results)
        self.combine = combine


def says_it_streams(strategy: object) -> bool:
    """Whether a strategy's ``aggregate_fit`` can do without the parameters in its ``results``.

    Who defines ``aggregate_fit`` says so: with ``streams``, or by defining ``combine`` beside it;
    if it says nothing, it may look at what came, as Flower's programs do. The nearest says it: the
    object (where a function was put in the method's place), its class, then the bases in order.
    """
    for place in (strategy, *type(strategy).__mro__):
        said = getattr(place, "__dict__", {})
        if "streams" in said:
            return bool(said["streams"])
        if "aggregate_fit" in said:
            return "combine" in said
    return False
