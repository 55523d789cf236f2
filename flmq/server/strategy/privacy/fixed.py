"""Central differential privacy with a fixed clipping norm.

McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018,
arXiv:1710.06963, Algorithm 1 with FlatClip and the estimator of a fixed denominator;
Geyer et al., 2017, arXiv:1712.07557.
"""

from __future__ import annotations

from dataclasses import dataclass

from flmq.common.clipping import KEY_CLIPPING_NORM
from flmq.common.typing import Config
from flmq.server.strategy.options import check_number
from flmq.server.strategy.privacy.wrapper import PrivateStrategy

__all__ = [
    "DifferentialPrivacyClientSideFixedClipping",
    "DifferentialPrivacyServerSideFixedClipping",
]


@dataclass(eq=False, repr=False)
class DifferentialPrivacyServerSideFixedClipping(PrivateStrategy):
    """Clip each client's update to ``clipping_norm`` on the server, and noise their mean."""

    noise_multiplier: float
    """Standard deviation of the noise on the sum of updates, in clipping norms. 0 for none."""
    clipping_norm: float
    """What the L2 norm of a client's update, over the whole model, is clipped to."""
    num_sampled_clients: int
    """How many clients a round asks: the sum of updates is divided by it, even if fewer reply."""

    def set_up(self) -> None:
        """Check ranges."""
        check_number(self, "noise_multiplier", least=0)
        check_number(self, "clipping_norm", above=0)
        check_number(self, "num_sampled_clients", least=1, whole=True)
        self.norm, self.update_noise = float(self.clipping_norm), float(self.noise_multiplier)


@dataclass(eq=False, repr=False)
class DifferentialPrivacyClientSideFixedClipping(DifferentialPrivacyServerSideFixedClipping):
    """Let clients clip their updates, with `flmq.client.mod.fixedclipping_mod`.

    The server clips again what is still too long, and names those clients: privacy does not rest
    on what a client says that it did.
    """

    clients_clip = True

    def client_config(self) -> Config:
        """Return the norm to clip to."""
        return {KEY_CLIPPING_NORM: self.norm}
