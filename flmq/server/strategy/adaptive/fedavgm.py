"""FedAvgM: averaging with momentum on the server.

Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", 2019, arXiv:1909.06335, section 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flmq.common.typing import NDArray, NDArrays, Parameters
from flmq.journal.state import StateValue
from flmq.server.strategy.adaptive.stepping import stepped
from flmq.server.strategy.combine import Combined
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.options import check_number

__all__ = ["FedAvgM"]


@dataclass(kw_only=True, eq=False, repr=False)
class FedAvgM(FedAvg):
    """SGD with momentum, with the mean of the clients' updates in place of a gradient.

    ::

        v = server_momentum v + delta
        x = x + server_learning_rate v

    With the defaults, momentum 0 and learning rate 1, it is FedAvg and gives its bits. Integers and
    booleans become their mean.

    Other than in Flower: ``initial_parameters`` may be left out, as the step goes out from the
    model that clients trained from; a first round that fails does not end the run; the momentum
    is saved with the run.
    """

    server_learning_rate: float = 1.0
    server_momentum: float = 0.0
    """0 or more and below 1."""

    def __post_init__(self) -> None:
        """Check ranges; begin at rest."""
        super().__post_init__()
        check_number(self, "server_learning_rate", least=0)
        check_number(self, "server_momentum", least=0, below=1)
        self.momentum_vector: NDArrays = []
        """One array for each tensor; empty before the first round. Flower's has the other sign."""

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        """Take a step of SGD with momentum."""
        if self.server_learning_rate == 1.0 and self.server_momentum == 0.0:
            return super().update(server_round, parameters, combined)

        def sgd(x: NDArray, delta: NDArray, v: NDArray) -> NDArray:
            v[:] = self.server_momentum * v + delta
            return x + self.server_learning_rate * v

        return stepped(parameters, combined, (self.momentum_vector,), sgd, (0.0,))

    def state_dict(self) -> Mapping[str, StateValue]:
        """Return the momentum itself: the next round changes these arrays."""
        return {"momentum_vector": self.momentum_vector}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the momentum; a run that another strategy began has none yet."""
        self.momentum_vector = state.get("momentum_vector", [])
