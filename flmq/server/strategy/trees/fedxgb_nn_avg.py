"""FedXgbNnAvg: the trees of all clients, and the mean of the networks that weigh them.

Ma et al., "Gradient-less Federated Gradient Boosting Trees with Learnable Learning Rates", 2023,
arXiv:2304.07537, Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from flmq.common.errors import MalformedMessage
from flmq.common.parameter import ndarray_to_bytes, tensor_spec
from flmq.common.typing import FitRes, Metrics, Parameters
from flmq.server.strategy.combine import AllReplies, Combine, Combined, WeightedMean
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.reply_check import ReplyCheck, check_fit_reply
from flmq.server.strategy.validation import checked_evaluation

__all__ = ["FedXgbNnAvg"]

_ARRAYS = "numpy.ndarray"


@dataclass(kw_only=True, eq=False, repr=False)
class FedXgbNnAvg(FedAvg):
    """FedAvg of a small network, beside the trees of each client.

    A reply has the network's arrays (``.npy``, as `ndarrays_to_parameters` makes them) and then
    one tensor more, the client's trees in any other form. The new model has the mean of the arrays,
    and then the trees of all clients in the order of their ids, for clients to predict with and
    train the network on. ``evaluate_fn`` gets these `Parameters` as they are.

    Other than in Flower, which has deprecated it: there, parameters are a list of arrays and trees
    that its own messages cannot carry.
    """

    reply_check = ReplyCheck.NONE

    def check_fit_res(self, res: FitRes) -> str | None:
        """Refuse a reply that is not arrays, all finite, and then trees."""
        arrays, trees = _apart(res.parameters)
        if len(trees) != 1 or not trees[0]:
            return (
                f"{len(arrays)} arrays and {len(trees)} other tensors came: return the network's "
                "arrays, and then the trees as one tensor"
            )
        network = replace(res, parameters=Parameters(arrays, _ARRAYS))
        return check_fit_reply(Parameters([], _ARRAYS), network, ReplyCheck.FINITE)

    def combine(self, server_round: int, parameters: Parameters) -> Combine:
        """Keep replies, to take arrays and trees apart."""
        return AllReplies()

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        """Average the arrays, and collect the trees."""
        mean, forest = WeightedMean(), []
        for client_id, res in combined.replies or ():
            arrays, trees = _apart(res.parameters)
            mean.add(client_id, replace(res, parameters=Parameters(arrays, _ARRAYS)))
            forest += trees
        return Parameters([*map(ndarray_to_bytes, mean.finish()), *forest], "")

    def evaluate(self, server_round: int, parameters: Parameters) -> tuple[float, Metrics] | None:
        """Evaluate with ``evaluate_fn``, if there is one."""
        evaluate: Any = self.evaluate_fn
        if evaluate is None:
            return None
        return checked_evaluation(evaluate(server_round, parameters, {}))


def _apart(parameters: Parameters) -> tuple[list[bytes], list[bytes]]:
    """Return the arrays, which come first, and what follows."""
    arrays: list[bytes] = []
    for tensor in parameters.tensors:
        try:
            tensor_spec(tensor)
        except MalformedMessage:
            break
        arrays.append(tensor)
    return arrays, parameters.tensors[len(arrays) :]
