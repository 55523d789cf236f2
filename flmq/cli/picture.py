"""A picture of a run: accuracy and loss by round, and where clients were lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flmq.cli.plain import accuracy_of
from flmq.cli.record import RunRecord, killed_rounds
from flmq.cli.replacing import replacing
from flmq.common.errors import UsageError
from flmq.datasets.errors import MissingExtra

__all__ = ["NothingToDraw", "draw"]

# Okabe and Ito's colours, which colour-blind eyes tell apart; forms differ too.
_BLUE = "#0072B2"
_ORANGE = "#E69F00"
_VERMILLION = "#D55E00"
_PURPLE = "#CC79A7"
_INK = "#333333"
_FAINT = "#8a8a8a"

_FATES: tuple[tuple[str, str, str], ...] = (
    ("accepted", "#9ecae1", ""),
    ("failed", _PURPLE, "////"),
    ("rejected", _PURPLE, "...."),
    ("silent", _ORANGE, "\\\\\\\\"),
    ("unroutable", "#cccccc", ""),
)
"""What can become of a client's training: the field of its count, a colour, a hatch."""

_MOST_MARKERS = 40
"""Rounds with a dot each on a curve."""
_MOST_LABELS = 4
"""Kills with words beside their line."""


class NothingToDraw(UsageError):
    """The record has no round with a loss or an accuracy."""


def draw(record: RunRecord, path: Path) -> None:
    """Write a PNG (or what ``path``'s suffix says: .svg, .pdf) of ``record``, 8 by 5 inches.

    Raises ``MissingExtra`` where matplotlib is not installed, ``NothingToDraw`` where no round
    was measured.
    """
    accuracies = [(each.server_round, accuracy_of(each.metrics)) for each in record.rounds]
    losses = [(each.server_round, each.loss) for each in record.rounds]
    curves = [
        (name, points, colour)
        for name, series, colour in (("accuracy", accuracies, _BLUE), ("loss", losses, _INK))
        if (points := [(at, value) for at, value in series if value is not None])
    ]
    if not curves:
        raise NothingToDraw(
            f"job {record.job} has no round with a loss or an accuracy to draw: give its strategy "
            "an evaluate_fn, or let clients evaluate"
        )
    figure = _figure()
    heights = [*[3, 2][: len(curves)], 0.9]
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    for axis, (name, points, colour) in zip(axes, curves, strict=False):
        _draw_curve(axis, name, points, colour)
    _draw_clients(axes[-1], record)
    _mark_kills(axes, killed_rounds(record), record.rounds[-1].server_round)
    _label(figure, axes[0], record)
    with replacing(path) as file:
        figure.savefig(file, dpi=150, format=path.suffix.removeprefix(".") or "png")


def _figure() -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("the picture of a run", "matplotlib") from error
    # Without pyplot: no global state, no window, usable from any thread.
    figure = Figure(figsize=(8, 5), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _draw_curve(axis: Any, name: str, points: Sequence[tuple[int, float]], colour: str) -> None:
    """One measure by round, its last value written beside it."""
    rounds, values = zip(*points, strict=True)
    marker = "o" if len(rounds) <= _MOST_MARKERS else ""
    axis.plot(rounds, values, color=colour, linewidth=2, marker=marker, markersize=4)
    axis.annotate(
        f"{values[-1]:.3f}",
        (rounds[-1], values[-1]),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        color=colour,
        fontsize=11,
        fontweight="bold",
        annotation_clip=False,
    )
    axis.set_ylabel(name, color=_INK)
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    if name == "loss":
        axis.set_ylim(bottom=0)
    else:
        axis.set_ylim(top=1)
    _plain_frame(axis)


def _draw_clients(axis: Any, record: RunRecord) -> None:
    """What became of the clients that were asked to train, stacked, by round."""
    rounds = [each.server_round for each in record.rounds]
    below = [0] * len(rounds)
    # Many bars touch, for gaps would flicker.
    width = 0.7 if len(rounds) <= _MOST_MARKERS else 1.0
    for field, colour, hatch in _FATES:
        counts = [int(getattr(each.fit, field)) for each in record.rounds]
        if not any(counts):
            continue
        label = "answered" if field == "accepted" else field
        axis.bar(
            rounds,
            counts,
            width,
            below,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0,
            label=label,
        )
        below = [low + count for low, count in zip(below, counts, strict=True)]
    axis.set_ylabel("clients", color=_INK)
    axis.set_xlabel("round", color=_INK)
    axis.set_ylim(0, max([*below, 1]))
    axis.xaxis.get_major_locator().set_params(integer=True, nbins=12)
    axis.yaxis.get_major_locator().set_params(integer=True, nbins=3)
    # To the right of the label of the x axis, where nothing else is.
    axis.legend(
        loc="upper right",
        bbox_to_anchor=(1.0, -0.38),
        ncols=len(_FATES),
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
        handlelength=1.2,
        columnspacing=1.2,
        borderaxespad=0.0,
    )
    _plain_frame(axis)


def _mark_kills(axes: Any, kills: dict[int, tuple[str, ...]], last: int) -> None:
    """A dashed line through all panels where clients were killed, up to round ``last``."""
    killed = {at: client_ids for at, client_ids in kills.items() if at <= last}
    for at in killed:
        for axis in axes:
            axis.axvline(at, color=_VERMILLION, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
    for at, client_ids in list(killed.items())[:_MOST_LABELS]:
        number = len(client_ids)
        axes[0].annotate(
            f"{number} client{'s' if number > 1 else ''} killed",
            (at, 0.06),
            xycoords=("data", "axes fraction"),
            xytext=(6, 0),
            textcoords="offset points",
            color=_VERMILLION,
            fontsize=10,
        )


def _plain_frame(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(_FAINT)
    axis.tick_params(colors=_INK, labelsize=9)


def _label(figure: Any, top: Any, record: RunRecord) -> None:
    """The job in bold, and below it what it was."""
    top.set_title(record.job, loc="left", fontsize=15, fontweight="bold", color=_INK, pad=30)
    subtitle = top.annotate(
        _subtitle(record),
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 12),
        textcoords="offset points",
        color=_FAINT,
        fontsize=10,
    )
    # A long line may run out of the picture; it must not squeeze the panels.
    subtitle.set_in_layout(False)
    figure.align_ylabels()


def _subtitle(record: RunRecord) -> str:
    """Strategy, partition, model, seed, rounds and time, as far as the record has them."""
    about = record.about
    partition = str(about.get("partition", ""))
    if partition == "dirichlet" and "alpha" in about:
        partition = f"Dirichlet({about['alpha']!s})"
    done = len(record.rounds)
    time = "" if record.seconds is None else f" in {record.seconds:.1f} s"
    asked = max((each.fit.asked for each in record.rounds), default=0)
    parts = [
        record.strategy,
        str(about.get("model", "")),
        f"{asked} clients",
        f"{partition} partition" if partition else "",
        f"{done} round{'s' if done != 1 else ''}{time}",
        "stopped by an error" if record.error else "",
    ]
    return "  ·  ".join(part for part in parts if part)
