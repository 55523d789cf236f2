"""The clipping norm of adaptive clipping: a quantile of norms, tracked with privacy.

Andrew et al., 2021, arXiv:1905.03871, Algorithm 1. Each client adds 1/2 to a sum if its update was
not clipped, else -1/2, so that one client, there or not, changes it by 1/2, and one that is missing
is neither for a larger norm nor for a smaller one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flmq.common.logger import get_logger
from flmq.common.noise import add_gaussian, generator
from flmq.common.typing import FitRes
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy.options import InvalidStrategyOption
from flmq.server.strategy.privacy.clipped import Update, named

__all__ = ["Quantile", "update_noise", "were_clipped"]

logger = get_logger(__name__)


def update_noise(noise_multiplier: float, stddev: float) -> float:
    """Return ``z_delta = (z^-2 - (2 sigma_b)^-2)^(-1/2)``, the noise multiplier of the updates.

    With the noise ``stddev``, sigma_b, on the count, both together are as private as z alone.

    Raises:
        InvalidStrategyOption: the count alone spends more than z allows.
    """
    if noise_multiplier == 0:
        return 0.0
    if noise_multiplier >= 2 * stddev:
        raise InvalidStrategyOption(
            f"noise_multiplier is {noise_multiplier!r} and the noise on the count of clipped "
            f"updates {stddev!r}, which spends it all: give a clipped_count_stddev (clip_count_"
            f"stddev) above {noise_multiplier / 2:g}; it is num_sampled_clients / 20 by default"
        )
    return 1 / math.sqrt(noise_multiplier**-2 - (2 * stddev) ** -2)


def were_clipped(
    results: list[tuple[ClientProxy, FitRes]],
    updates: Mapping[str, Update],
    key: str | None,
    clipped_is: bool = True,
) -> dict[str, bool]:
    """Return of each client whether its update was clipped.

    A client that clips says so in its metric ``key``: ``clipped_is`` if it did. Where it says
    nothing of the kind, or sent an update that is not clipped, the norm of that decides.
    """
    clipped, silent = {}, []
    for client, res in results:
        update = updates[client.cid]
        clipped[client.cid] = update.factor < 1
        if key is None or update.exceeded:
            continue
        said = res.metrics.get(key)
        if isinstance(said, int) and said in (0, 1):
            clipped[client.cid] = bool(said) is clipped_is
        else:
            silent.append(client.cid)
    if silent:
        logger.warning("these do not say in %r whether they clipped: %s", key, named(silent))
    return clipped


@dataclass(frozen=True, slots=True)
class Quantile:
    """How the norm moves from round to round."""

    gamma: float
    """The share of updates that is not to be clipped."""
    rate: float
    """eta_C."""
    stddev: float
    """Of the noise on the count."""
    num_sampled_clients: int

    def next_norm(
        self, norm: float, clipped: Mapping[str, bool], secret: bytes, server_round: int
    ) -> float:
        """Return ``norm * exp(-rate * (b - gamma))``; b is the noised share that was not clipped.

        The noise belongs to the round and to who was clipped, as that of the mean to its replies.
        """
        count = np.array([sum(-0.5 if each else 0.5 for each in clipped.values())])
        context = ("count", repr(self), server_round, norm, sorted(clipped.items()))
        add_gaussian(count, self.stddev, generator(secret, *context))
        b = 0.5 + float(count[0]) / max(self.num_sampled_clients, len(clipped))
        # Within what a float can hold, so that a hostile rate cannot end in zero or infinity.
        step = min(max(-self.rate * (b - self.gamma), -600.0), 600.0)
        return min(max(norm * math.exp(step), 1e-300), 1e300)
