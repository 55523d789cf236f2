"""The proximal term of FedProx, which keeps local training near the global model.

Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, arXiv:1812.06127,
equation 2: a client minimizes ``F_k(w) + mu/2 |w - w_t|^2``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from flmq.common.errors import UsageError
from flmq.common.typing import NDArray, NDArrays, Scalar

__all__ = ["InvalidProximalTerm", "proximal_gradient"]


class InvalidProximalTerm(UsageError, ValueError):
    """mu is no number of 0 or more."""

    def __init__(self, mu: object) -> None:
        """Say what it is."""
        super().__init__(
            f'mu is {mu!r:.70}: give a number of 0 or more, config["proximal_mu"] from FedProx'
        )


def proximal_gradient(
    parameters: Sequence[NDArray], global_parameters: Sequence[NDArray], mu: Scalar
) -> NDArrays:
    """Return the gradient of the proximal term, ``mu (w - w_t)`` for each tensor, in its dtype.

    Args:
        parameters: the local model w; add the result to its gradients, before the step.
        global_parameters: the model w_t that came with the task; keep a copy of it.
        mu: ``config["proximal_mu"]``.

    Raises:
        InvalidProximalTerm: ``mu`` is no number of 0 or more.
    """
    if not isinstance(mu, int | float) or isinstance(mu, bool) or not 0 <= mu < math.inf:
        raise InvalidProximalTerm(mu)
    return [
        np.asarray(mu * np.subtract(w, w_t), w.dtype)
        for w, w_t in zip(parameters, global_parameters, strict=True)
    ]
