"""Which replies Krum and Bulyan choose, from the squared distances between them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flmq.common.errors import NonFiniteValues

__all__ = ["bulyan_selection", "krum_scores", "krum_selection"]

_Distances = npt.NDArray[np.float64]


def krum_scores(distances: _Distances, f: int) -> npt.NDArray[np.float64]:
    """Return each reply's sum of squared distances to its n - f - 2 nearest (at least one)."""
    n = len(distances)
    nearest = max(1, n - f - 2)
    others = distances[~np.eye(n, dtype=bool)].reshape(n, n - 1)
    with np.errstate(over="ignore"):
        scores: npt.NDArray[np.float64] = np.sort(others, axis=1)[:, :nearest].sum(axis=1)
    return scores


def krum_selection(distances: _Distances, f: int, keep: int) -> list[int]:
    """Return the ``keep`` replies with the lowest scores, best first; ties as they stand.

    Raises:
        NonFiniteValues: one of them is no finite distance from its neighbours.
    """
    scores = krum_scores(distances, f)
    best = np.argsort(scores, kind="stable")[:keep]
    if not np.isfinite(scores[best]).all():
        raise NonFiniteValues(
            "the distances between replies are too large to tell which are close to each other"
        )
    return [int(row) for row in best]


def bulyan_selection(distances: _Distances, f: int) -> list[int]:
    """Return n - 2f replies, in their order: Krum's choice, then Krum's of the others, and so on.

    Raises:
        NonFiniteValues: as `krum_selection`.
    """
    left, chosen = list(range(len(distances))), []
    for _ in range(len(distances) - 2 * f):
        best = krum_selection(distances[np.ix_(left, left)], f, 1)[0]
        chosen.append(left.pop(best))
    return sorted(chosen)
