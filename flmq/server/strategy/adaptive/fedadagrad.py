"""FedAdagrad: Adagrad on the server. Reddi et al., 2021, arXiv:2003.00295, Algorithm 2."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flmq.common.typing import NDArray, Parameters
from flmq.server.strategy.adaptive.fedopt import FedOpt
from flmq.server.strategy.adaptive.stepping import stepped
from flmq.server.strategy.combine import Combined

__all__ = ["FedAdagrad"]


@dataclass(kw_only=True, eq=False, repr=False)
class FedAdagrad(FedOpt):
    """Adagrad: a number's steps shrink with all that it has moved so far.

    ::

        v = v + delta^2
        x = x + eta delta / (sqrt(v) + tau)

    As in Flower and in the paper's experiments beta_1 is 0, so that there is no first moment to
    keep. v begins with 0 as in Flower; with at least ``tau**2`` in the paper, for which give
    ``initial_accumulator_value``.
    """

    beta_1: float = field(default=0.0, init=False)
    beta_2: float = field(default=0.0, init=False)

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        """Take Adagrad's step."""

        def adagrad(x: NDArray, delta: NDArray, v: NDArray) -> NDArray:
            v += delta**2
            return x + self.eta * delta / (np.sqrt(v) + self.tau)

        initial = (self.initial_accumulator_value,)
        return stepped(parameters, combined, (self.v_t,), adagrad, initial)
