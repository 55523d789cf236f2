"""QFedAvg: clients with large losses weigh more, so that the model serves all about equally.

Li et al., "Fair Resource Allocation in Federated Learning", ICLR 2020, arXiv:1905.10497,
Algorithm 2 (q-FedAvg).
"""

from __future__ import annotations

from dataclasses import dataclass

from flmq.common.parameter import ndarray_to_bytes
from flmq.common.typing import FitRes, Parameters
from flmq.server.strategy.blockwise import Replies
from flmq.server.strategy.combine import AllReplies, Combine, Combined
from flmq.server.strategy.fair.differences import against, squared_norms
from flmq.server.strategy.fair.losses import is_loss, power, usable
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.options import check_number

__all__ = ["QFedAvg"]


@dataclass(kw_only=True, eq=False, repr=False)
class QFedAvg(FedAvg):
    """Steps against the clients' updates, each weighed by a power of the client's loss.

    ::

        L = 1 / qffl_learning_rate;  F_k = the loss of client k at w
        h_k = q F_k^(q-1) L^2 ||w - w_k||^2 + L F_k^q
        w = w - sum_k F_k^q L (w - w_k) / sum_k h_k

    In the paper F_k is the client's own: give ``loss_metric="loss"``, and let clients return the
    loss of the model that they got among their metrics. By default it is as in Flower the loss that
    the server measures with ``evaluate_fn``, the same for all; weights are then equal, which is not
    the paper's algorithm. Without one Flower dies of an UnboundLocalError; here the round fails,
    and says what to give. A reply's number of examples does not matter, as in the paper.

    Replies are read from disk in blocks, twice, and computed in float64; tensors keep their dtype,
    and integers become their mean.
    """

    q_param: float = 0.2
    """q, 0 or more: with 0 all clients weigh the same; the larger, the fairer."""
    qffl_learning_rate: float = 0.1
    """The clients' learning rate, above 0."""
    min_fit_clients: int = 1
    min_evaluate_clients: int = 1
    min_available_clients: int = 1
    loss_metric: str | None = None
    """Name of the metric that holds a client's loss; None for the server's, as in Flower."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_number(self, "q_param", least=0)
        check_number(self, "qffl_learning_rate", above=0)

    def check_fit_res(self, res: FitRes) -> str | None:
        """Refuse a reply without a usable loss, if clients are to send theirs."""
        loss = 0.0 if self.loss_metric is None else res.metrics.get(self.loss_metric)
        if is_loss(loss):
            return None
        return (
            f"metrics[{self.loss_metric!r}] is {loss!r}: return the loss of the model that came, "
            "finite and not negative"
        )

    def combine(self, server_round: int, parameters: Parameters) -> Combine:
        """Keep replies: what they weigh is known only when all have come."""
        return AllReplies()

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        """Take the step."""
        replies, q, rate = combined.replies, self.q_param, 1 / self.qffl_learning_rate
        assert replies is not None
        losses = self._losses(server_round, parameters, replies)
        norms = squared_norms(parameters, replies)
        h = [
            q * power(loss, q - 1) * rate**2 * norm + rate * power(loss, q)
            for loss, norm in zip(losses, norms, strict=True)
        ]
        weights = [power(loss, q) * rate / sum(h) for loss in losses]
        tensors = against(parameters, replies, weights)
        return Parameters([ndarray_to_bytes(each) for each in tensors], parameters.tensor_type)

    def _losses(self, server_round: int, parameters: Parameters, replies: Replies) -> list[float]:
        """Return each client's loss, or the server's for all."""
        if self.loss_metric is not None:
            return [usable(res.metrics.get(self.loss_metric), who) for who, res in replies]
        measured = self.evaluate(server_round, parameters)
        return [usable(measured and measured[0], "the server")] * len(replies)
