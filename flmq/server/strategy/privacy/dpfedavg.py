"""DP-FedAvg under its older names, with clients that clip; programs still import them.

McMahan et al., 2018, arXiv:1710.06963, and Andrew et al., 2021, arXiv:1905.03871. Clients may be
`flmq.client.DPFedAvgNumPyClient`. New programs: ``DifferentialPrivacyClientSide...Clipping``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flmq.common.clipping import (
    KEY_DPFEDAVG_ADAPTIVE,
    KEY_DPFEDAVG_BIT,
    KEY_DPFEDAVG_NORM,
    KEY_DPFEDAVG_STDDEV,
)
from flmq.common.typing import Config
from flmq.server.strategy.options import check_number
from flmq.server.strategy.privacy.tracking import TrackingStrategy
from flmq.server.strategy.privacy.wrapper import PrivateStrategy

__all__ = ["DPFedAvgAdaptive", "DPFedAvgFixed"]


@dataclass(eq=False, repr=False)
class DPFedAvgFixed(PrivateStrategy):
    """Central differential privacy with a fixed clipping norm, and clients that clip.

    With ``server_side_noising`` the server clips again and adds all noise. Without it each client
    adds its share, ``N(0, (z C)^2 / n)``, and the server only that of clients that are missing:
    then nothing can be clipped here, and epsilon holds if clients do as they are told. (Flower adds
    all noise a second time.)
    """

    num_sampled_clients: int
    clip_norm: float
    noise_multiplier: float = 1
    server_side_noising: bool = True

    def set_up(self) -> None:
        """Check ranges."""
        check_number(self, "num_sampled_clients", least=1, whole=True)
        check_number(self, "clip_norm", above=0)
        check_number(self, "noise_multiplier", least=0)
        self.norm, self.update_noise = float(self.clip_norm), float(self.noise_multiplier)
        self.clients_clip, self.clients_noise = (
            self.server_side_noising,
            not self.server_side_noising,
        )

    def client_config(self) -> Config:
        """Return what clients clip to, and the noise that each adds."""
        return _told(self)


@dataclass(eq=False, repr=False)
class DPFedAvgAdaptive(TrackingStrategy):
    """`DPFedAvgFixed` with a norm that follows a quantile of the updates' norms."""

    num_sampled_clients: int
    init_clip_norm: float = 0.1
    noise_multiplier: float = 1.0
    server_side_noising: bool = True
    clip_norm_lr: float = 0.2
    clip_norm_target_quantile: float = 0.5
    """Which share of the updates is not to be clipped: gamma of the paper."""
    clip_count_stddev: float | None = None
    """Of the noise on the count of clipped updates; None for num_sampled_clients / 20."""

    norm_bit_key = KEY_DPFEDAVG_BIT
    bit_of_a_clipped_one = False

    def set_up(self) -> None:
        """Check ranges, and that the count leaves a budget for the updates."""
        check_number(self, "num_sampled_clients", least=1, whole=True)
        check_number(self, "init_clip_norm", above=0)
        check_number(self, "noise_multiplier", least=0)
        check_number(self, "clip_norm_lr", above=0)
        check_number(self, "clip_norm_target_quantile", least=0, most=1)
        if self.clip_count_stddev is not None:
            check_number(self, "clip_count_stddev", least=0)
        self.clients_clip, self.clients_noise = (
            self.server_side_noising,
            not self.server_side_noising,
        )
        self.track(
            self.init_clip_norm,
            gamma=self.clip_norm_target_quantile,
            rate=self.clip_norm_lr,
            count_stddev=self.clip_count_stddev,
        )

    def client_config(self) -> Config:
        """Return what clients clip to, the noise that each adds, and that they tell the bit."""
        return {**_told(self), KEY_DPFEDAVG_ADAPTIVE: True}


def _told(strategy: PrivateStrategy) -> Config:
    told: Config = {KEY_DPFEDAVG_NORM: strategy.norm}
    if strategy.clients_noise:
        spread = math.sqrt(strategy.num_sampled_clients)
        told[KEY_DPFEDAVG_STDDEV] = strategy.update_noise * strategy.norm / spread
    return told
