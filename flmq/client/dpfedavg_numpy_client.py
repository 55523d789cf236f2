"""The client of the strategies `DPFedAvgFixed` and `DPFedAvgAdaptive`, under Flower's name."""

from __future__ import annotations

import math

from flmq.client.mod.clipping import clipping_norm
from flmq.client.mod.private_update import private_update
from flmq.client.numpy_client import NumPyClient
from flmq.common.clipping import (
    KEY_DPFEDAVG_ADAPTIVE,
    KEY_DPFEDAVG_BIT,
    KEY_DPFEDAVG_NORM,
    KEY_DPFEDAVG_STDDEV,
)
from flmq.common.errors import UsageError
from flmq.common.noise import new_secret
from flmq.common.typing import Config, Metrics, NDArrays, Properties

__all__ = ["DPFedAvgNumPyClient", "InvalidNoise"]


class InvalidNoise(UsageError):
    """A task asks for noise that is none."""

    def __init__(self, value: object) -> None:
        """Say what it asks for."""
        super().__init__(
            f"config[{KEY_DPFEDAVG_STDDEV!r}] is {value!r:.70}, not a number of 0 or more: it is "
            "what DPFedAvgFixed and DPFedAvgAdaptive send"
        )


class DPFedAvgNumPyClient(NumPyClient):
    """Around another client: clips the updates of its training, and adds its share of the noise."""

    def __init__(self, client: NumPyClient, *, noise_seed: int | None = None) -> None:
        """Wrap ``client``; ``noise_seed`` as in `LocalDpMod`."""
        self.client = client
        self._secret = new_secret(noise_seed)

    def get_properties(self, config: Config) -> Properties:
        """Return the properties of the wrapped client."""
        return self.client.get_properties(config)

    def get_parameters(self, config: Config) -> NDArrays:
        """Return the parameters of the wrapped client."""
        return self.client.get_parameters(config)

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        """Train, clip, and add noise if the strategy leaves that to clients.

        Raises:
            NoClippingNorm: the strategy sends no norm.
            InvalidNoise: it sends a standard deviation that is none.
        """
        norm = clipping_norm(config, KEY_DPFEDAVG_NORM, "DPFedAvgFixed or DPFedAvgAdaptive")
        stddev = config.get(KEY_DPFEDAVG_STDDEV, 0.0)
        if isinstance(stddev, bool) or not isinstance(stddev, int | float):
            raise InvalidNoise(stddev)
        if not 0 <= stddev < math.inf:
            raise InvalidNoise(stddev)
        model = [each.copy() for each in parameters]  # training in place is fine
        trained, num_examples, metrics = self.client.fit(parameters, config)
        made, was_clipped = private_update(trained, model, norm, float(stddev), self._secret)
        if config.get(KEY_DPFEDAVG_ADAPTIVE):
            metrics = {**metrics, KEY_DPFEDAVG_BIT: not was_clipped}
        return made, num_examples, metrics

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        """Evaluate with the wrapped client."""
        return self.client.evaluate(parameters, config)
