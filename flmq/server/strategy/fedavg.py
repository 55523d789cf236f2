"""Federated averaging: the new model is the mean of the clients', weighted by their examples.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, arXiv:1602.05629, Algorithm 1: ``w_{t+1} = sum_k (n_k / n) w^k_{t+1}``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flmq.aggregation import specs_of
from flmq.common.errors import InconsistentTensors, MalformedMessage, UsageError
from flmq.common.parameter import named_like, parameters_to_ndarrays
from flmq.common.typing import (
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Metrics,
    MetricsAggregationFn,
    Parameters,
)
from flmq.server.client_manager import ClientManager, num_selected
from flmq.server.client_proxy import ClientProxy
from flmq.server.criterion import Criterion
from flmq.server.strategy.aggregate import weighted_loss_avg, weighted_metrics_avg
from flmq.server.strategy.combine import Combine, Combined, WeightedMean
from flmq.server.strategy.options import FedAvgOptions
from flmq.server.strategy.reply_check import ReplyCheck
from flmq.server.strategy.strategy import Strategy
from flmq.server.strategy.streaming import StreamedResults, says_it_streams
from flmq.server.strategy.validation import (
    checked_config,
    checked_evaluation,
    checked_metrics,
    checked_parameters,
    method_name,
)

__all__ = ["FedAvg", "NoMean"]


class NoMean(UsageError):
    """The model's tensors are of a type that has no mean."""

    def __init__(self, error: Exception) -> None:
        """Name the tensor, and the reason."""
        super().__init__(
            f"the initial parameters cannot be averaged: {error}. Cast them, or override combine"
        )


_Res = TypeVar("_Res", FitRes, EvaluateRes)


class FedAvg(FedAvgOptions, Strategy):
    """Federated averaging, constructed with the fields of `FedAvgOptions` as keyword arguments.

    A variant subclasses it, as a dataclass if it has options of its own, and overrides the one step
    that differs: `combine`, how replies are combined; `update`, how the model is updated;
    `aggregate_metrics`; or what clients are told in `configure_fit`.
    """

    streams = True

    def __repr__(self) -> str:
        """Show the strategy as Flower does."""
        return f"{type(self).__name__}(accept_failures={self.accept_failures})"

    def num_fit_clients(self, num_available_clients: int) -> tuple[int, int]:
        """Return how many clients to train on, and how many must be available."""
        share = int(num_available_clients * self.fraction_fit)
        return max(share, self.min_fit_clients), self.min_available_clients

    def num_evaluation_clients(self, num_available_clients: int) -> tuple[int, int]:
        """Return how many clients to evaluate on, and how many must be available."""
        share = int(num_available_clients * self.fraction_evaluate)
        return max(share, self.min_evaluate_clients), self.min_available_clients

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """Return the initial parameters and release them, so that they do not stay in memory."""
        parameters, self.initial_parameters = self.initial_parameters, None
        return parameters

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Sample clients; each gets the model and a config of its own."""
        clients = _sample(client_manager, self.num_fit_clients, self.criterion)
        # Only now, when all clients have come: a config that contains the time is then correct.
        config = checked_config("on_fit_config_fn", self.on_fit_config_fn, server_round)
        return [(client, FitIns(parameters, dict(config))) for client in clients]

    def combine(self, server_round: int, parameters: Parameters) -> Combine:
        """Take the exact mean of replies as they arrive: the first of two steps."""
        return WeightedMean()

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        """Make the new model: the second step, in which server-side strategies differ.

        Args:
            server_round: the round, counted from 1.
            parameters: the global model that clients trained from. Without tensors if
                `aggregate_fit` is called directly and no `initial_parameters` were given.
            combined: the result of `combine`: an array for each tensor, to iterate over.

        Returns:
            The new global model: here ``combined`` itself.
        """
        return combined.parameters()

    def check_mean(self, model: Parameters) -> None:
        """Check that replies like ``model`` have the mean that this strategy computes.

        Raises:
            NoMean: they have none, so that no round would change the model.
        """
        # Only for unmodified replies: what a subclass makes of them is its own business.
        streams = self.reply_check is ReplyCheck.LIKE_SENT and says_it_streams(self)
        if not streams:
            return
        combine = self.combine(0, model)
        if type(combine) is not WeightedMean and not getattr(combine, "reals", False):
            return
        try:
            specs_of(parameters_to_ndarrays(model, copy=False), model.names)
        except (InconsistentTensors, MalformedMessage) as error:
            raise NoMean(error) from error

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Sample clients, unless ``fraction_evaluate`` is 0; each gets a config of its own."""
        if self.fraction_evaluate == 0.0:
            return []
        clients = _sample(client_manager, self.num_evaluation_clients, self.criterion)
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
        # First, as it may fail the round: then no step may have been taken.
        metrics = self.aggregate_metrics(results, self.fit_metrics_aggregation_fn)
        model = self.global_parameters
        if not model.tensors and self.initial_parameters is not None:
            model = self.initial_parameters  # called by hand, before any server had them
        if isinstance(results, StreamedResults):
            combine = results.combine
        else:
            combine = self.combine(server_round, model)
            for client, res in results:
                combine.add(client.cid, res)
        updated = self.update(server_round, model, combine.finish())
        # A program that calls this directly, round after round, continues from here, as with
        # Flower.
        updated = named_like(checked_parameters(method_name(self, "update"), updated), model)
        self.global_parameters = updated
        return updated, metrics

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
        """Evaluate with ``evaluate_fn``, if there is one."""
        if self.evaluate_fn is None:
            return None
        measured = self.evaluate_fn(server_round, parameters_to_ndarrays(parameters), {})
        return checked_evaluation(measured)

    def aggregate_metrics(
        self,
        results: list[tuple[ClientProxy, _Res]],
        aggregation_fn: MetricsAggregationFn | None,
    ) -> Metrics:
        """Aggregate the clients' metrics: by the function if given, else as weighted means."""
        metrics = [(res.num_examples, res.metrics) for _, res in results]
        if aggregation_fn is None:
            return weighted_metrics_avg(metrics)
        return checked_metrics(aggregation_fn(metrics))


def _sample(
    client_manager: ClientManager,
    num_clients: Callable[[int], tuple[int, int]],
    criterion: Criterion | None,
) -> list[ClientProxy]:
    """Wait for the required clients, and only then compute how many to ask."""
    chosen_by = {} if criterion is None else {"criterion": criterion}
    _, needed = num_clients(num_selected(client_manager, criterion))
    if num_selected(client_manager, criterion) < needed:
        client_manager.sample(0, needed, **chosen_by)
    size, needed = num_clients(num_selected(client_manager, criterion))
    return client_manager.sample(num_clients=size, min_num_clients=needed, **chosen_by)
