"""How much privacy a run has spent: epsilon, by Google's ``dp-accounting``.

Each round is a Gaussian mechanism whose noise is ``noise_multiplier`` times what one client can
change. What is composed depends on who knows which clients a round asked:

- by default anybody may. A client then spends in the rounds that counted its reply, and epsilon is
  that of the client whose replies counted most often. Neighbours: a client's reply counts, or is
  zero (Kairouz et al., 2021, arXiv:2103.00039, Definition 1.1); the composition is exact.
- with ``num_clients`` nobody may, and rounds sample so many of ``num_clients`` at random. Sampling
  of a fixed size without replacement amplifies privacy (Wang et al., 2019, arXiv:1808.00087).
  Neighbours: a client is replaced by another, which changes a sum by twice the clipping norm.
"""

from __future__ import annotations

import importlib.util
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache

from flmq.common.logger import get_logger

__all__ = ["Accountant"]

logger = get_logger(__name__)

_ABSENT = "epsilon is not computed: install it with pip install 'flmq[privacy]'"


class Accountant:
    """Count what each round spends; `epsilon` is what all of them have spent together."""

    def __init__(self, noise_multiplier: float, delta: float, num_clients: int | None) -> None:
        """Begin with nothing spent; say so once if epsilon cannot be computed."""
        self._noise_multiplier = noise_multiplier
        self._delta = delta
        self._num_clients = num_clients
        self._spent: Counter[str | int] = Counter()
        self._installed = importlib.util.find_spec("dp_accounting") is not None
        if noise_multiplier > 0 and not self._installed:
            logger.warning("%s", _ABSENT)

    def spend(self, client_ids: Iterable[str], num_asked: int) -> None:
        """Count a round of which something was published that these clients' replies are in.

        ``num_asked`` is the number of clients that it sampled.
        """
        counted = list(client_ids)
        if counted and self._num_clients is None:
            self._spent.update(counted)
        elif counted:
            self._spent[max(num_asked, len(counted))] += 1

    def epsilon(self) -> float | None:
        """Return epsilon at the given delta; infinity without noise; None if it cannot be told."""
        if not self._spent:
            return 0.0
        if self._noise_multiplier == 0:
            return math.inf
        if not self._installed:
            return None
        if self._num_clients is None:
            return _composed(self._noise_multiplier, max(self._spent.values()), self._delta)
        samples = tuple(sorted((int(size), times) for size, times in self._spent.items()))
        return _sampled(self._noise_multiplier, self._num_clients, samples, self._delta)

    def state_dict(self) -> dict[str | int, int]:
        """Return what was spent."""
        return dict(self._spent)

    def load_state_dict(self, state: Mapping[str | int, int]) -> None:
        """Restore what `state_dict` returned."""
        self._spent = Counter(dict(state))


@cache
def _composed(noise_multiplier: float, times: int, delta: float) -> float:
    """Return epsilon of a Gaussian mechanism that is done ``times`` times.

    It is one with ``noise_multiplier / sqrt(times)`` (Dong et al., 2019, arXiv:1905.02383,
    Corollary 3.3), of which epsilon is known exactly (Balle & Wang, 2018, arXiv:1805.06530).
    """
    from dp_accounting import get_epsilon_gaussian  # takes seconds to import

    return float(get_epsilon_gaussian(noise_multiplier / math.sqrt(times), delta))


@cache
def _sampled(
    noise_multiplier: float, num_clients: int, samples: tuple[tuple[int, int], ...], delta: float
) -> float:
    """Return epsilon of ``(size, times)`` samples of ``num_clients``, by Renyi divergences."""
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE)
    event = dp_accounting.GaussianDpEvent(noise_multiplier / 2)
    for size, times in samples:
        sample = dp_accounting.SampledWithoutReplacementDpEvent(num_clients, size, event)
        # All of them sampled is no sampling.
        accountant.compose(event if size >= num_clients else sample, times)
    return float(accountant.get_epsilon(delta))
