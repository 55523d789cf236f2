"""FedAdam: Adam on the server. Reddi et al., 2021, arXiv:2003.00295, Algorithm 2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flmq.common.typing import NDArray, Parameters
from flmq.server.strategy.adaptive.fedopt import FedOpt
from flmq.server.strategy.combine import Combined

__all__ = ["FedAdam"]


@dataclass(kw_only=True, eq=False, repr=False)
class FedAdam(FedOpt):
    """Adam, with the mean of the clients' updates in place of a gradient.

    ::

        m = beta_1 m + (1 - beta_1) delta
        v = beta_2 v + (1 - beta_2) delta^2
        x = x + eta_t m / (sqrt(v) + tau)

    By default the numbers are Flower's, where ``eta_t = eta sqrt(1 - beta_2^(t+1)) / (1 -
    beta_1^(t+1))`` in round t. This is nearly the bias correction of Adam (Kingma and Ba, 2015,
    arXiv:1412.6980, section 2), which in the first round has the exponent 1 and not 2. The paper's
    algorithm has none: ``FedAdam(bias_correction=False, initial_accumulator_value=tau**2)``, where
    its experiments have a ``tau`` of 1e-3.
    """

    beta_1: float = 0.9
    beta_2: float = 0.99
    bias_correction: bool = True
    """Whether the learning rate follows the rounds as in Flower; False for the paper's."""

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        """Take Adam's step."""
        eta_t = self.eta
        if self.bias_correction:
            exponent = server_round + 1
            eta_t *= (1 - self.beta_2**exponent) ** 0.5 / (1 - self.beta_1**exponent)

        def adam(x: NDArray, delta: NDArray, m: NDArray, v: NDArray) -> NDArray:
            m[:] = self.beta_1 * m + (1 - self.beta_1) * delta
            v[:] = self.beta_2 * v + (1 - self.beta_2) * delta**2
            return x + eta_t * m / (np.sqrt(v) + self.tau)

        return self.step(parameters, combined, adam)
