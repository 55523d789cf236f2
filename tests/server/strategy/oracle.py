"""Flower as an oracle: the installed ``flwr``'s strategies on the arrays that ours get.

::

    same_as_flower(FedAdam, model, [[([x], 3), ([y], 1)], ...], eta=0.1)
    assert_flowers_constructor(FedAdam)

Flower's strategies are called in this process: nothing goes over a network.
"""

from __future__ import annotations

import importlib
import inspect
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from flmq.common import FitRes, Metrics, NDArrays, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy import Strategy
from tests.server.proxies import IdleProxy, fit_res, manager_of

__all__ = [
    "Reply",
    "assert_close",
    "assert_flowers_constructor",
    "flower",
    "our_results",
    "round_of_flowers",
    "round_of_ours",
    "same_as_flower",
]

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

Reply = tuple[NDArrays, int] | tuple[NDArrays, int, Metrics]
"""A client's arrays, its number of examples, and its metrics."""


def flower(module: str = "flwr.server.strategy") -> Any:
    """Return one of Flower's modules; its warnings about its own dependencies are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


def name_of(client: int) -> str:
    """Return client ids whose order is that of their numbers."""
    return f"client-{client:03}"


def our_results(replies: Sequence[Reply]) -> list[tuple[ClientProxy, FitRes]]:
    """Return ``results`` for our ``aggregate_fit``: of client-000, client-001 and so on."""
    return [
        (IdleProxy(name_of(number)), fit_res(ndarrays_to_parameters(arrays), examples, *metrics))
        for number, (arrays, examples, *metrics) in enumerate(replies)
    ]


def round_of_ours(
    strategy: Strategy,
    server_round: int,
    model: NDArrays,
    replies: Sequence[Reply],
    failures: Sequence[BaseException] = (),
) -> tuple[NDArrays | None, Metrics]:
    """Run one round as the server does, of our strategy."""
    strategy.global_parameters = ndarrays_to_parameters(model)
    clients = manager_of(*map(name_of, range(max(len(replies), 2))))
    strategy.configure_fit(server_round, strategy.global_parameters, clients)
    made, metrics = strategy.aggregate_fit(server_round, our_results(replies), list(failures))
    return None if made is None else parameters_to_ndarrays(made), metrics


def round_of_flowers(
    strategy: Any,
    server_round: int,
    model: NDArrays,
    replies: Sequence[Reply],
    failures: Sequence[BaseException] = (),
) -> tuple[NDArrays | None, Metrics]:
    """Run one round as Flower's server does, of one of its strategies."""
    common = flower("flwr.common")
    manager: Any = flower("flwr.server.client_manager").SimpleClientManager()
    for number in range(max(len(replies), 2)):
        manager.register(IdleProxy(name_of(number)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strategy.configure_fit(server_round, common.ndarrays_to_parameters(model), manager)
        made, metrics = strategy.aggregate_fit(
            server_round,
            [
                (
                    IdleProxy(name_of(number)),
                    common.FitRes(
                        common.Status(common.Code.OK, ""),
                        common.ndarrays_to_parameters(arrays),
                        examples,
                        *(metrics or [{}]),
                    ),
                )
                for number, (arrays, examples, *metrics) in enumerate(replies)
            ],
            list(failures),
        )
    return None if made is None else common.parameters_to_ndarrays(made), metrics


def same_as_flower(
    kind: type[Strategy],
    model: NDArrays,
    rounds: Iterable[Sequence[Reply]],
    *,
    tolerance: float = 1e-6,
    beyond: Mapping[str, Any] | None = None,
    **options: Any,
) -> NDArrays:
    """Run ``rounds`` with our strategy and with Flower's of that name, and compare each model.

    Each side trains on from its own model. ``options`` go to both constructors, and ``beyond`` only
    to ours. Returns our last model.
    """
    common = flower("flwr.common")
    theirs = getattr(flower(), kind.__name__)(
        **options, initial_parameters=common.ndarrays_to_parameters(model)
    )
    ours: Any = kind
    ours = ours(**options, **(beyond or {}), initial_parameters=ndarrays_to_parameters(model))
    our_model, their_model = model, model
    for server_round, replies in enumerate(rounds, 1):
        our_next, our_metrics = round_of_ours(ours, server_round, our_model, replies)
        their_next, their_metrics = round_of_flowers(theirs, server_round, their_model, replies)
        assert our_next is not None
        assert their_next is not None
        assert_close(our_next, their_next, tolerance, f"round {server_round}")
        for name in their_metrics:
            assert our_metrics[name] == their_metrics[name]
        our_model, their_model = our_next, their_next
    return our_model


def assert_close(
    ours: NDArrays, theirs: NDArrays, tolerance: float = 1e-6, where: str = "the model"
) -> None:
    """Compare within ``tolerance``, relative above 1 and absolute below.

    Values and shapes alone: Flower turns float32 models into float64, and 0-d arrays into scalars.
    """
    assert len(ours) == len(theirs)
    for tensor, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one.shape == other.shape, f"{where}, tensor {tensor}"
        np.testing.assert_allclose(
            one.astype(np.float64),
            other.astype(np.float64),
            rtol=tolerance,
            atol=tolerance,
            err_msg=f"{where}, tensor {tensor}",
        )


def assert_flowers_constructor(kind: type[Strategy], optional: Sequence[str] = ()) -> None:
    """Check that each call of the constructor of Flower's class of this name is one of ours.

    Names and defaults are the same; positional arguments come first, in the same order. What ours
    has beyond Flower's has a default and is given by keyword. Arguments that Flower requires and
    ours does not are named in ``optional``.
    """
    theirs = _arguments(getattr(flower(), kind.__name__))
    ours = _arguments(kind)
    for place, (name, argument) in enumerate(theirs.items()):
        assert name in ours, f"{kind.__name__} has no argument {name}"
        mine = ours[name]
        if argument.default is not inspect.Parameter.empty:
            assert mine.default == argument.default, f"{kind.__name__}({name}=...)"
        elif name in optional:
            assert mine.default is not inspect.Parameter.empty, f"{name} has no default"
        else:
            assert mine.default is inspect.Parameter.empty, f"{name} has a default"
        if argument.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            assert mine.kind is argument.kind, f"{name} is not positional"
            assert list(ours).index(name) == place, f"{name} is not argument {place}"
    for name, mine in ours.items():
        if name not in theirs:
            assert mine.kind is inspect.Parameter.KEYWORD_ONLY, f"{name} is positional"
            assert mine.default is not inspect.Parameter.empty, f"{name} has no default"


def _arguments(kind: type[Any]) -> dict[str, inspect.Parameter]:
    """Return a constructor's arguments; ``**kwargs`` are those of the base class."""
    own = inspect.signature(kind).parameters.values()
    arguments: dict[str, inspect.Parameter] = {}
    for each in own:
        if each.kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(_arguments(kind.__mro__[1]))
        elif each.kind is not inspect.Parameter.VAR_POSITIONAL:
            arguments[each.name] = each
    return arguments
