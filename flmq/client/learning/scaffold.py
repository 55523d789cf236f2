"""The client's side of SCAFFOLD: the correction of its steps, and its control variate.

Karimireddy et al., ICML 2020, arXiv:1910.06378, Algorithm 1, option II (lines 7 to 13).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from flmq.client.learning.variates import StoredVariates
from flmq.client.numpy_client import NumPyClient
from flmq.common.dtypes import is_float
from flmq.common.errors import InvalidReturnValue, UsageError
from flmq.common.learning import CONTROL_VARIATE, is_digest
from flmq.common.typing import Config, Metrics, NDArray, NDArrays

__all__ = ["NotScaffold", "ScaffoldClient"]


class NotScaffold(UsageError):
    """A task is not of the strategy SCAFFOLD."""

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__(
            "the task has no control variate, as those of the strategy SCAFFOLD do: use that "
            "strategy, or another client than a ScaffoldClient"
        )


class ScaffoldClient(NumPyClient, ABC):
    """Base class of SCAFFOLD's clients: override `train`, and `evaluate` as in any `NumPyClient`.

    Killed and started again, or asked again for what it has done, it starts from the same variate.
    """

    def __init__(self, state_dir: Path | None) -> None:
        """Keep variates in ``state_dir``, that of the client's `ClientContext`.

        Raises:
            NoStateFolder: it is None.
        """
        self._variates = StoredVariates(state_dir)

    @abstractmethod
    def train(
        self, parameters: NDArrays, correction: NDArrays, config: Config
    ) -> tuple[NDArrays, float, int, Metrics]:
        """Take K local steps of SGD, ``y -= eta (g(y) + correction)``.

        Args:
            parameters: the global model's tensors, from which to start: the client's own copies.
            correction: ``c - c_i``, an array for each of them, of at least float32; zeros for
                tensors of integers and booleans. To add to each gradient.
            config: settings from the strategy.

        Returns:
            The trained tensors y, ``K eta`` (with a learning rate that changes, the sum of those of
            all steps), the number of examples, and metrics.
        """

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        """Train with the correction, and return y and ``c_i' - c_i``.

        Raises:
            LostVariate: the variate that counts for this client is not in its folder any more.
            NotScaffold: the task is not of this strategy.
        """
        x, c, base = _parts(parameters, config)
        c_i = self._variates.load(base, like=c) if base else [np.zeros_like(each) for each in c]
        correction = [np.subtract(*pair) for pair in zip(c, c_i, strict=True)]
        returned = self.train([each.copy() for each in x], correction, config)
        y, distance, num_examples, metrics = self._checked(returned, x)
        dc = [_change(*each, distance) for each in zip(x, y, c, strict=True)]
        variate = [np.add(*pair) for pair in zip(c_i, dc, strict=True)]
        digest = self._variates.store(variate, beside=base)
        return [*y, *dc], num_examples, {**metrics, CONTROL_VARIATE: digest}

    def _checked(self, returned: Any, x: NDArrays) -> tuple[NDArrays, float, int, Metrics]:
        """Return what `train` returned, if it is what it should."""
        match returned:
            case (list() | tuple() as y, distance, num_examples, dict() as metrics):
                like = [np.shape(each) for each in y] == [each.shape for each in x]
                if (
                    like
                    and isinstance(distance, float | int | np.floating)
                    and 0 < distance < math.inf
                ):
                    return list(y), float(distance), num_examples, metrics
        raise InvalidReturnValue(
            f"{type(self).__name__}.train should return the model's tensors, in their order and "
            "shapes, K times the learning rate (above 0), the number of examples, and a dict of "
            'metrics. Example:\n\n    return parameters, steps * lr, 10, {"accuracy": 0.95}\n'
        )


def _parts(parameters: NDArrays, config: Config) -> tuple[NDArrays, NDArrays, str]:
    """Return x, c, and the digest of c_i; that is empty while it is zero."""
    count, odd = divmod(len(parameters), 2)
    base = config.get(CONTROL_VARIATE)
    if odd or not isinstance(base, str) or not (base == "" or is_digest(base)):
        raise NotScaffold
    return parameters[:count], parameters[count:], base


def _change(x: NDArray, y: NDArray, c: NDArray, distance: float) -> NDArray:
    """Return ``c_i' - c_i = (x - y) / (K eta) - c``; zeros for tensors that are not trained."""
    if not is_float(x.dtype):
        return np.zeros_like(c)
    return np.asarray(np.subtract(x, y, dtype=c.dtype) / distance - c, c.dtype)
