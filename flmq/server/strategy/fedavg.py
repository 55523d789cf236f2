"""Federated averaging: the new model is the mean of the clients', weighted by their examples.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, arXiv:1602.05629, Algorithm 1: ``w_{t+1} = sum_k (n_k / n) w^k_{t+1}``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from flmq.aggregation import specs_of
from flmq.common.errors import InconsistentTensors, MalformedMessage, UsageError
from flmq.common.parameter import ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.typing import (
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Metrics,
    MetricsAggregationFn,
    NDArrays,
    Parameters,
)
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy.aggregate import aggregate, weighted_loss_avg, weighted_metrics_avg
from flmq.server.strategy.options import FedAvgOptions
from flmq.server.strategy.reply_check import ReplyCheck
from flmq.server.strategy.sink import MeanSink, StreamedResults
from flmq.server.strategy.strategy import Strategy
from flmq.server.strategy.validation import checked_config, checked_evaluation, checked_metrics

__all__ = ["FedAvg", "NoMean"]


class NoMean(UsageError):
    """The model's tensors are of a kind that has no mean."""

    def __init__(self, error: Exception) -> None:
        """Say which tensor, and why."""
        super().__init__(
            f"the initial parameters cannot be averaged: {error}. Cast them, or override "
            "aggregate_parameters"
        )


_Res = TypeVar("_Res", FitRes, EvaluateRes)


class FedAvg(FedAvgOptions, Strategy):
    """Federated averaging, constructed with the fields of `FedAvgOptions` as keyword arguments.

    A strategy that averages differently subclasses it, is a dataclass where it has options of its
    own, and overrides the one step that differs: `aggregate_parameters`, `aggregate_metrics`, or
    what it tells its clients in `configure_fit`.
    """

    def __repr__(self) -> str:
        """Show the strategy as Flower does."""
        return f"{type(self).__name__}(accept_failures={self.accept_failures})"

    def num_fit_clients(self, num_available_clients: int) -> tuple[int, int]:
        """Return how many clients train, and how many must be available before."""
        share = int(num_available_clients * self.fraction_fit)
        return max(share, self.min_fit_clients), self.min_available_clients

    def num_evaluation_clients(self, num_available_clients: int) -> tuple[int, int]:
        """Return how many clients measure, and how many must be available before."""
        share = int(num_available_clients * self.fraction_evaluate)
        return max(share, self.min_evaluate_clients), self.min_available_clients

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """Give the initial parameters away; they are not kept in memory."""
        parameters, self.initial_parameters = self.initial_parameters, None
        return parameters

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Sample clients; each gets the model and a config of its own."""
        clients = _sample(client_manager, self.num_fit_clients)
        # Only now, when all are here: what it says of the time or the round is then true.
        config = checked_config("on_fit_config_fn", self.on_fit_config_fn, server_round)
        return [(client, FitIns(parameters, dict(config))) for client in clients]

    def fit_sink(self, server_round: int, parameters: Parameters) -> MeanSink | None:
        """The mean, as replies come; None where a subclass makes something else of them.

        Or where somebody put a function of theirs in the place of a method of this one.
        """
        return MeanSink() if self._takes_the_mean() else None

    def _takes_the_mean(self) -> bool:
        return all(
            getattr(method, "__func__", None) is ours
            for method, ours in (
                (self.aggregate_fit, FedAvg.aggregate_fit),
                (self.aggregate_parameters, FedAvg.aggregate_parameters),
            )
        )

    def check_mean(self, model: Parameters) -> None:
        """Do nothing if replies that look like ``model`` have the mean that this strategy takes.

        Raises:
            NoMean: they have none, so that no round would change the model.
        """
        if self.reply_check is not ReplyCheck.LIKE_SENT or not self._takes_the_mean():
            return
        try:
            specs_of(parameters_to_ndarrays(model, copy=False))
        except (InconsistentTensors, MalformedMessage) as error:
            raise NoMean(error) from error

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Sample clients, unless ``fraction_evaluate`` is 0; each gets a config of its own."""
        if self.fraction_evaluate == 0.0:
            return []
        clients = _sample(client_manager, self.num_evaluation_clients)
        config = checked_config("on_evaluate_config_fn", self.on_evaluate_config_fn, server_round)
        return [(client, EvaluateIns(parameters, dict(config))) for client in clients]

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, Metrics]:
        """Aggregate parameters and metrics, unless there are failures that are not accepted."""
        if not results or (failures and not self.accept_failures):
            return None, {}
        if isinstance(results, StreamedResults):
            parameters = results.sink.mean()
        else:
            replies = (
                (parameters_to_ndarrays(res.parameters, copy=False), res.num_examples)
                for _, res in results
            )
            parameters = ndarrays_to_parameters(self.aggregate_parameters(server_round, replies))
        return parameters, self.aggregate_metrics(results, self.fit_metrics_aggregation_fn)

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[tuple[ClientProxy, EvaluateRes] | BaseException],
    ) -> tuple[float | None, Metrics]:
        """Aggregate losses and metrics, unless there are failures that are not accepted."""
        if not results or (failures and not self.accept_failures):
            return None, {}
        loss = weighted_loss_avg([(res.num_examples, res.loss) for _, res in results])
        return loss, self.aggregate_metrics(results, self.evaluate_metrics_aggregation_fn)

    def evaluate(self, server_round: int, parameters: Parameters) -> tuple[float, Metrics] | None:
        """Measure with ``evaluate_fn``, where there is one."""
        if self.evaluate_fn is None:
            return None
        measured = self.evaluate_fn(server_round, parameters_to_ndarrays(parameters), {})
        return checked_evaluation(measured)

    def aggregate_parameters(
        self, server_round: int, replies: Iterable[tuple[NDArrays, int]]
    ) -> NDArrays:
        """Make the new model of ``(tensors, num_examples)`` pairs: here, their exact mean.

        ``replies`` can be iterated once, and loads each reply when it comes to it; the tensors
        are read-only.
        """
        return aggregate(replies)

    def aggregate_metrics(
        self,
        results: list[tuple[ClientProxy, _Res]],
        aggregation_fn: MetricsAggregationFn | None,
    ) -> Metrics:
        """Make one set of metrics of the clients': by the function, or as weighted means."""
        metrics = [(res.num_examples, res.metrics) for _, res in results]
        if aggregation_fn is None:
            return weighted_metrics_avg(metrics)
        return checked_metrics(aggregation_fn(metrics))


def _sample(
    client_manager: ClientManager, num_clients: Callable[[int], tuple[int, int]]
) -> list[ClientProxy]:
    """Wait for the clients that must be there, and only then work out how many to ask."""
    _, needed = num_clients(client_manager.num_available())
    if client_manager.num_available() < needed:
        client_manager.sample(0, needed)
    size, needed = num_clients(client_manager.num_available())
    return client_manager.sample(num_clients=size, min_num_clients=needed)
