"""What private strategies share whose clipping norm is learned from round to round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flmq.common.typing import Metrics
from flmq.journal.state import StateValue
from flmq.server.strategy.privacy.clipped import Update
from flmq.server.strategy.privacy.quantile import Quantile, update_noise, were_clipped
from flmq.server.strategy.privacy.wrapper import PrivateStrategy, Results

__all__ = ["TrackingStrategy"]


class TrackingStrategy(PrivateStrategy):
    """A private strategy whose clipping norm follows a quantile of the updates' norms."""

    bit_of_a_clipped_one = True
    """What a client that clipped says in its metric ``norm_bit_key``."""

    def track(
        self, initial: float, *, gamma: float, rate: float, count_stddev: float | None
    ) -> None:
        """Begin at ``initial``; None for the noise on the count that the paper recommends, n / 20.

        Raises:
            InvalidStrategyOption: the count leaves no budget for the updates.
        """
        if count_stddev is None:
            count_stddev = self.num_sampled_clients / 20 if self.noise_multiplier > 0 else 0.0
        self.update_noise = update_noise(self.noise_multiplier, count_stddev)
        self.norm = float(initial)
        self._quantile = Quantile(gamma, rate, count_stddev, self.num_sampled_clients)

    @property
    def clipping_norm(self) -> float:
        """The norm of the next round."""
        return self.norm

    def learn(self, server_round: int, results: Results, updates: Mapping[str, Update]) -> Metrics:
        """Move the norm towards its quantile; show the one that this round used."""
        used = self.norm
        clipped = were_clipped(results, updates, self.norm_bit_key, self.bit_of_a_clipped_one)
        self.norm = self._quantile.next_norm(used, clipped, self._secret, server_round)
        return {"clipping_norm": used}

    def state_dict(self) -> Mapping[str, StateValue]:
        """Return the state, with the norm."""
        return {**super().state_dict(), "norm": self.norm}

    def load_state_dict(self, state: Mapping[str, StateValue]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        saved: Any = state
        self.norm = saved["norm"]
