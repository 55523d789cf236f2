"""FedXgbBagging: each round appends the trees that all clients trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from flmq.common.typing import Config, FitRes, Metrics, Parameters
from flmq.server.strategy.combine import AllReplies, Combine, Combined
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.options import InvalidStrategyOption
from flmq.server.strategy.reply_check import ReplyCheck
from flmq.server.strategy.trees.forest import Forest, InvalidTrees, joined
from flmq.server.strategy.validation import checked_evaluation

__all__ = ["FedXgbBagging"]

EvaluateFunction = Callable[[int, Parameters, Config], tuple[float, Metrics] | None]


@dataclass(kw_only=True, eq=False, repr=False)
class FedXgbBagging(FedAvg):
    """Bagging of XGBoost models in JSON: ``model = model + trees of client 1 + trees of client 2``.

    A client gets the whole model, boosts it, and returns only its new trees, as
    ``Booster.save_raw("json")``; to begin with the model is empty, ``Parameters([], "")``. The
    trees are appended in the order of client ids, whatever order they came in. A reply that is not
    such a model is refused; trees for other features or classes than the model's fail the round.

    Other than in Flower: all trees of a reply are appended, each for the class that it was trained
    for (Flower appends only the first ``num_parallel_tree`` of them, all for class 0, which loses
    trees of clients that boost several rounds or several classes); and the model that the run
    begins with is kept.
    """

    evaluate_function: EvaluateFunction | None = field(default=None, kw_only=False)
    """``(server_round, parameters, {}) -> (loss, metrics) | None``: evaluates on the server."""

    reply_check = ReplyCheck.NONE

    def __post_init__(self) -> None:
        """Refuse an ``evaluate_fn``: it would get arrays."""
        super().__post_init__()
        if self.evaluate_fn is not None:
            raise InvalidStrategyOption(
                "evaluate_fn gets arrays, and trees are none: give evaluate_function, which gets "
                "the Parameters"
            )

    def check_fit_res(self, res: FitRes) -> str | None:
        """Refuse a reply that is not trees."""
        if not res.parameters.tensors:
            return 'no trees came: return Parameters([booster.save_raw("json")], "")'
        try:
            for data in res.parameters.tensors:
                Forest.read(data)
        except InvalidTrees as error:
            return str(error)
        return None

    def combine(self, server_round: int, parameters: Parameters) -> Combine:
        """Keep replies, to go through them in the order of client ids."""
        return AllReplies()

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        """Append their trees to the model's."""
        models = [("the model", data) for data in parameters.tensors if data]
        for client_id, res in combined.replies or ():
            models += [(client_id, data) for data in res.parameters.tensors]
        return Parameters([joined(models)], "")

    def evaluate(self, server_round: int, parameters: Parameters) -> tuple[float, Metrics] | None:
        """Evaluate with ``evaluate_function``, if there is one."""
        if self.evaluate_function is None:
            return None
        return checked_evaluation(self.evaluate_function(server_round, parameters, {}))
