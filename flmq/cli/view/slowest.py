"""The clients whose replies come last: who they are, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from flmq.common.cleaning import one_line
from flmq.common.phase import Phase
from flmq.observe.record import RunRecord

__all__ = ["Slow", "draw_slowest", "slowest_clients"]

_INK = "#333333"
_BAR = "#9ecae1"
_DOT = "#D55E00"


@dataclass(frozen=True, slots=True)
class Slow:
    """How long a client took."""

    client_id: str
    median: float
    """Seconds from the opening of a phase of training to its reply: half of them took less."""
    longest: float
    rounds: int
    """Number of its replies."""


def slowest_clients(record: RunRecord, most: int) -> list[Slow]:
    """Return the clients whose replies to training came last in the median, slowest first."""
    seconds: dict[str, list[float]] = {}
    for closed in record.rounds:
        for each in closed.outcomes:
            if each.phase == Phase.FIT.value and each.seconds is not None:
                seconds.setdefault(each.client_id, []).append(each.seconds)
    found = [Slow(name, median(took), max(took), len(took)) for name, took in seconds.items()]
    return sorted(found, key=lambda each: (-each.median, each.client_id))[:most]


def draw_slowest(axis: Any, slowest: Sequence[Slow]) -> None:
    """Draw a bar a client up to its median, with a dot at its longest, the slowest on top."""
    places = range(len(slowest))
    axis.barh(places, [each.median for each in slowest], 0.6, color=_BAR, label="median")
    axis.plot(
        [each.longest for each in slowest],
        places,
        linestyle="",
        marker="o",
        markersize=4,
        color=_DOT,
        label="longest",
    )
    labels = [one_line(each.client_id, 24) for each in slowest]
    axis.set_yticks(places, labels, parse_math=False)
    axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel("seconds to the reply", color=_INK, fontsize=9)
    axis.set_title("slowest clients", loc="left", fontsize=10, color=_INK, pad=4)
    axis.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=2,
        frameon=False,
        fontsize=8,
        labelcolor=_INK,
        borderaxespad=0.0,
    )
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#8a8a8a")
    axis.tick_params(colors=_INK, labelsize=8)
