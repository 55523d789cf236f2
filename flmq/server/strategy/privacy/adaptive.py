"""Central differential privacy with a clipping norm that follows a quantile of the updates' norms.

Andrew et al., "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021,
arXiv:1905.03871, Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from flmq.common.clipping import KEY_CLIPPING_NORM, KEY_NORM_BIT
from flmq.common.typing import Config
from flmq.server.strategy.options import check_number
from flmq.server.strategy.privacy.tracking import TrackingStrategy

__all__ = [
    "DifferentialPrivacyClientSideAdaptiveClipping",
    "DifferentialPrivacyServerSideAdaptiveClipping",
]


@dataclass(eq=False, repr=False)
class DifferentialPrivacyServerSideAdaptiveClipping(TrackingStrategy):
    """Clip updates on the server to a norm that is learned, with privacy, from round to round.

    ``noise_multiplier`` is that of the whole: part of it goes to the count of clipped updates, so
    the updates get more noise than it says. Noise is that of the norm that updates were clipped to;
    Flower takes the next round's, and moves the norm away from its target instead of to it.
    """

    noise_multiplier: float
    num_sampled_clients: int
    initial_clipping_norm: float = 0.1
    target_clipped_quantile: float = 0.5
    """Which share of the updates is to be clipped: 1 - gamma of the paper."""
    clip_norm_lr: float = 0.2
    """By how much the norm moves, eta_C: by a factor of at most exp(eta_C), but for noise."""
    clipped_count_stddev: float | None = None
    """Of the noise on the count of clipped updates; None for num_sampled_clients / 20."""

    def set_up(self) -> None:
        """Check ranges, and that the count leaves a budget for the updates."""
        check_number(self, "noise_multiplier", least=0)
        check_number(self, "num_sampled_clients", least=1, whole=True)
        check_number(self, "initial_clipping_norm", above=0)
        check_number(self, "target_clipped_quantile", least=0, most=1)
        check_number(self, "clip_norm_lr", above=0)
        if self.clipped_count_stddev is not None:
            check_number(self, "clipped_count_stddev", least=0)
        self.track(
            self.initial_clipping_norm,
            gamma=1 - self.target_clipped_quantile,
            rate=self.clip_norm_lr,
            count_stddev=self.clipped_count_stddev,
        )


@dataclass(eq=False, repr=False)
class DifferentialPrivacyClientSideAdaptiveClipping(DifferentialPrivacyServerSideAdaptiveClipping):
    """Let clients clip their updates, with `flmq.client.mod.adaptiveclipping_mod`.

    The server clips again what is still too long, and names those clients. A client that does not
    say whether it clipped, or says something else than 0 or 1, counts by the norm of its update.
    """

    clients_clip = True
    norm_bit_key = KEY_NORM_BIT

    def client_config(self) -> Config:
        """Return the norm to clip to."""
        return {KEY_CLIPPING_NORM: self.norm}
