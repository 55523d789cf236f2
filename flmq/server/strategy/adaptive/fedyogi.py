"""FedYogi: Yogi on the server. Reddi et al., 2021, arXiv:2003.00295, Algorithm 2."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flmq.common.typing import NDArray, Parameters
from flmq.server.strategy.adaptive.fedopt import FedOpt
from flmq.server.strategy.combine import Combined

__all__ = ["FedYogi"]


@dataclass(kw_only=True, eq=False, repr=False)
class FedYogi(FedOpt):
    """Yogi (Zaheer et al., NeurIPS 2018), whose second moment grows and shrinks by a like amount.

    ::

        m = beta_1 m + (1 - beta_1) delta
        v = v - (1 - beta_2) delta^2 sign(v - delta^2)
        x = x + eta m / (sqrt(v) + tau)

    The formula and defaults are the paper's and Flower's. Only v's first value differs: 0 in
    Flower, and here by default; at least ``tau**2`` in the paper. Give
    ``initial_accumulator_value=1e-6`` for that, with the ``tau`` of 1e-3.
    """

    eta: float = 1e-2
    eta_l: float = 0.0316
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        """Take Yogi's step."""

        def yogi(x: NDArray, delta: NDArray, m: NDArray, v: NDArray) -> NDArray:
            m[:] = self.beta_1 * m + (1 - self.beta_1) * delta
            v[:] = v - (1 - self.beta_2) * delta**2 * np.sign(v - delta**2)
            return x + self.eta * m / (np.sqrt(v) + self.tau)

        return self.step(parameters, combined, yogi)
