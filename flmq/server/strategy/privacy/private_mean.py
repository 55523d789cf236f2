"""The mean of clipped updates with Gaussian noise, as replies come (McMahan et al., 2018).

::

    d_k     = w_k - w_t                              over the whole model, in float64
    mean    = sum_k d_k min(1, C / |d_k|) / n        n fixed; a client that is missing adds zero
    w_{t+1} = w_t + mean + N(0, (z C / n)^2)         rounded once, to each tensor's dtype
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from flmq.aggregation import MeanAccumulator, specs_of
from flmq.common.clipping import moved
from flmq.common.dtypes import is_float
from flmq.common.errors import ZeroWeight
from flmq.common.noise import add_gaussian, generator
from flmq.common.parameter import ndarray_to_bytes, parameters_to_ndarrays
from flmq.common.typing import FitRes, NDArray, Parameters
from flmq.server.strategy.combine import Combined
from flmq.server.strategy.privacy.clipped import RepliedTwice, Update
from flmq.wire import ref_of

__all__ = ["Mechanism", "PrivateMean", "noised"]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """What a round does to updates."""

    clipping_norm: float
    """C; infinity for updates that clients have clipped and noised themselves."""
    noise_norm: float
    """What the noise multiplier is multiplied with: C."""
    noise_multiplier: float
    """z, of the updates alone."""
    num_sampled_clients: int
    """n; the mean of more replies is divided by their number."""
    secret: bytes
    by_clients: bool = False
    """Whether clients add the noise, so that only the share of the missing ones is added here."""

    def divisor(self, replies: int) -> int:
        """Return what the sum of updates is divided by."""
        return max(self.num_sampled_clients, replies)

    def stddev(self, replies: int) -> float:
        """Return the standard deviation of the noise on each number of the mean."""
        full = self.noise_multiplier * self.noise_norm / self.divisor(replies)
        if not self.by_clients:
            return full
        missing = max(0, self.num_sampled_clients - replies)
        return full * float(np.sqrt(missing / self.num_sampled_clients))


class PrivateMean:
    """A `Combine` that adds up clipped updates; memory is that of one sum of float64.

    It draws its noise when it is finished, from a key made of the secret, the round, the model and
    the replies: finished again with the same replies it has the same bits, and with others it has
    other noise.
    """

    def __init__(self, mechanism: Mechanism, server_round: int, model: Parameters) -> None:
        """Start empty."""
        self.updates: dict[str, Update] = {}
        self.finished = False
        self._mechanism = mechanism
        self._round = server_round
        self._model = model
        self._digests: dict[str, str] = {}
        floating = [np.empty(each.shape) for each in self._arrays() if is_float(each.dtype)]
        self._sum = MeanAccumulator(specs_of(floating))

    def add(self, client_id: str, res: FitRes) -> None:
        """Clip one reply and add it.

        Raises:
            AggregationError: it does not fit the model, is not finite, or its client has one
                already; names the client.
        """
        if client_id in self.updates:
            raise RepliedTwice(client_id)
        update = Update.of(client_id, res, self._model, self._mechanism.clipping_norm)
        for index, tensor in enumerate(update.tensors(res, self._model)):
            self._sum.add_block(index, 0, np.ravel(tensor), 1)
        self._sum.add_weight(1)
        self.updates[client_id] = update
        self._digests[client_id] = ref_of(res.parameters).digest

    def merge(self, other: PrivateMean) -> None:
        """Add everything that ``other`` was given.

        Raises:
            RepliedTwice: a client is in both.
        """
        for client_id in sorted(self.updates.keys() & other.updates.keys()):
            raise RepliedTwice(client_id)
        self._sum.merge(other._sum)
        self.updates |= other.updates
        self._digests |= other._digests

    def _context(self) -> tuple[object, ...]:
        """Return what the round's noise belongs to."""
        mechanism = replace(self._mechanism, secret=b"")
        replies = tuple(sorted(self._digests.items()))
        return self._round, repr(mechanism), ref_of(self._model).digest, replies

    def finish(self) -> Combined:
        """Return the noised mean, as a model.

        Raises:
            ZeroWeight: there are no replies.
        """
        replies = len(self.updates)
        if not replies:
            raise ZeroWeight("nothing to average: there are no results")
        self.finished = True
        total, self._sum = self._sum, MeanAccumulator(())
        total.add_weight(self._mechanism.divisor(replies) - replies)
        context, stddev = self._context(), self._mechanism.stddev(replies)
        return Combined(replies, replies, lambda: self._tensors(total, context, stddev))

    def _tensors(
        self, total: MeanAccumulator, context: tuple[object, ...], stddev: float
    ) -> Iterator[NDArray]:
        means = total.means()
        for index, old in enumerate(self._arrays()):
            if not is_float(old.dtype):
                yield old.copy()
                continue
            mean = next(means)
            add_gaussian(mean, stddev, generator(self._mechanism.secret, "model", index, *context))
            yield moved(old, mean)

    def _arrays(self) -> list[NDArray]:
        return parameters_to_ndarrays(self._model, copy=False)


def noised(model: Parameters, mechanism: Mechanism, server_round: int, replies: int) -> Parameters:
    """Return a model that is not from a `PrivateMean` with the noise that its mean would have."""
    stddev, tensors = mechanism.stddev(replies), []
    context = ("model made elsewhere", server_round, ref_of(model).digest)
    for index, old in enumerate(parameters_to_ndarrays(model, copy=False)):
        if is_float(old.dtype):
            noise = np.zeros(old.shape)
            add_gaussian(noise, stddev, generator(mechanism.secret, index, *context))
            old = moved(old, noise)
        tensors.append(ndarray_to_bytes(old))
    return Parameters(tensors, model.tensor_type, model.names)
