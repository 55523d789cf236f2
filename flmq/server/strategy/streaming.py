"""Whether a strategy's replies are combined as they arrive, and what it then gets."""

from __future__ import annotations

from collections.abc import Iterable

from flmq.common.typing import FitRes
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy.combine import Combine

__all__ = ["StreamedResults", "says_it_streams"]


class StreamedResults(list[tuple[ClientProxy, FitRes]]):
    """``results`` with empty parameters, which went to ``combine`` as they arrived."""

    def __init__(self, results: Iterable[tuple[ClientProxy, FitRes]], combine: Combine) -> None:
        """Hold the replies, and the object that combined their parameters."""
        super().__init__(results)
        self.combine = combine


def says_it_streams(strategy: object) -> bool:
    """Return whether ``aggregate_fit`` can do without the parameters in its ``results``.

    The class that defines ``aggregate_fit`` says so: with ``streams``, or by defining ``combine``
    beside it; if it says nothing, it may read the parameters, as Flower's programs do. The nearest
    definition counts: the object (if a function was put in the method's place), its class, then the
    bases in order.
    """
    for place in (strategy, *type(strategy).__mro__):
        said = getattr(place, "__dict__", {})
        if "streams" in said:
            return bool(said["streams"])
        if "aggregate_fit" in said:
            return "combine" in said
    return False
