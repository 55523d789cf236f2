"""Draw a run: measurements by round, and where clients were lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flmq.cli.view.slowest import draw_slowest, slowest_clients
from flmq.common.cleaning import one_line
from flmq.common.errors import UsageError
from flmq.common.files import replacing
from flmq.datasets.errors import MissingExtra, check_installed
from flmq.observe.measures import figure as figure_of
from flmq.observe.measures import is_of_training, measures_of, number, shown_name
from flmq.observe.record import RunRecord, killed_rounds

__all__ = ["NothingToDraw", "check_drawable", "draw"]

_WHAT = "the picture of a run"

# Okabe and Ito's colours, which colour-blind people can distinguish; shapes differ too.
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
"""Outcomes of a client's training: the field of its count, a colour, a hatch."""

_MOST_MARKERS = 40
"""Maximum number of rounds drawn as dots on a curve."""
_MOST_LABELS = 4
"""Maximum number of kills labelled beside their line."""
_MOST_BARS = 400
"""Maximum number of rounds whose clients are drawn as bars; more are areas."""
_MOST_CURVES = 62
_LARGE = 2
"""Curves as wide as the picture; the others are small, several beside each other."""
_ACROSS = 3
"""Small curves beside each other."""
_MOST_CLIENTS = 8
"""Maximum number of the slowest clients drawn."""
_SHORT_NAME = 10
_HEIGHT = 5.0
"""Height in inches with two curves."""
_FURTHER = 1.2
"""Additional inches for each row of small curves."""
_OF_CLIENTS = 0.22
"""Additional inches for each of the slowest clients."""
_COLOURS = (_BLUE, "#009E73", _PURPLE)


class NothingToDraw(UsageError):
    """The record has no round with a loss or a metric."""


def draw(record: RunRecord, path: Path) -> None:
    """Draw ``record`` to ``path``, as PNG or what its suffix says (.svg, .pdf).

    The picture is 8 inches wide, and higher the more is measured. The slowest clients are those
    whose replies to training came latest in the median of rounds.

    Raises:
        MissingExtra: matplotlib is not installed.
        NothingToDraw: no round was measured.
    """
    curves, left_out = _curves(record)
    if not curves:
        raise NothingToDraw(
            f"job {record.job} has no round with a loss or a metric to draw: give its strategy "
            "an evaluate_fn, or let clients evaluate"
        )
    slowest = slowest_clients(record, _MOST_CLIENTS)
    names, small = list(curves)[:_LARGE], list(curves)[_LARGE:]
    rows = math.ceil(len(small) / _ACROSS)
    below = _OF_CLIENTS * (len(slowest) + 2) if slowest else 0.0
    figure = _figure(_HEIGHT + _FURTHER * rows + below)
    heights = [*[3, 2][: len(names)], *[1.5] * rows, 0.9, *([0.8 * below] if slowest else [])]
    grid = figure.add_gridspec(len(heights), _ACROSS, height_ratios=heights)
    axes = [figure.add_subplot(grid[0, :])]
    axes += [figure.add_subplot(grid[at, :], sharex=axes[0]) for at in range(1, len(names))]
    for place, (axis, name) in enumerate(zip(axes, names, strict=True)):
        _draw_curve(axis, name, curves[name], _colour(place, name))
    for place, name in enumerate(small):
        row, column = divmod(place, _ACROSS)
        axis = figure.add_subplot(grid[len(names) + row, column], sharex=axes[0])
        _draw_small(axis, name, curves[name], _colour(place, name))
        axes.append(axis)
    axes.append(figure.add_subplot(grid[len(names) + rows, :], sharex=axes[0]))
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=False)
    _draw_clients(axes[-1], record, left_out)
    _mark_kills(axes, killed_rounds(record), record.rounds[-1].server_round)
    if slowest:
        draw_slowest(figure.add_subplot(grid[-1, :]), slowest)
    _label(figure, axes[0], record)
    with replacing(path, tidy=True) as file:
        figure.savefig(file, dpi=150, format=path.suffix.removeprefix(".") or "png")


def _curves(record: RunRecord) -> tuple[dict[str, list[tuple[int, float]]], list[str]]:
    """Return the measurements to draw (first metric, loss, others), and the names left out."""
    found: dict[str, list[tuple[int, float]]] = {}
    for closed in record.rounds:
        for name, value in measures_of(closed).items():
            measured = number(value)
            if measured is not None and math.isfinite(measured):
                found.setdefault(name, []).append((closed.server_round, measured))
    names = sorted(found, key=is_of_training)
    others = [name for name in names if name != "loss"]
    if "loss" in found:
        others.insert(min(1, len(others)), "loss")
    return {name: found[name] for name in others[:_MOST_CURVES]}, others[_MOST_CURVES:]


def _colour(place: int, name: str) -> str:
    return _INK if _is_loss(name) else _COLOURS[place % len(_COLOURS)]


def _is_loss(name: str) -> bool:
    return name == "loss" or name.endswith("_loss")


def check_drawable() -> None:
    """Raise ``MissingExtra`` if `draw` would, as matplotlib is not installed."""
    check_installed(_WHAT, "matplotlib", "matplotlib")


def _figure(height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra(_WHAT, "matplotlib") from error
    # Without pyplot: no global state, no window, usable on any thread.
    figure = Figure(figsize=(8, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _draw_curve(axis: Any, name: str, points: Sequence[tuple[int, float]], colour: str) -> None:
    """Draw one measurement by round, with its last value beside it."""
    rounds, values = zip(*points, strict=True)
    marker = "o" if len(rounds) <= _MOST_MARKERS else ""
    axis.plot(rounds, values, color=colour, linewidth=2, marker=marker, markersize=4)
    axis.annotate(
        figure_of(values[-1]),
        (rounds[-1], values[-1]),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        color=colour,
        fontsize=11,
        fontweight="bold",
        annotation_clip=False,
    )
    # Clients choose the names of metrics: do not parse them as mathematics.
    size = 10 if len(name) <= _SHORT_NAME else 8
    axis.set_ylabel(shown_name(name, 26), color=_INK, fontsize=size, parse_math=False)
    _bound(axis, name, values)


def _draw_small(axis: Any, name: str, points: Sequence[tuple[int, float]], colour: str) -> None:
    """Draw one measurement in a third of the width, with its name and last value above."""
    rounds, values = zip(*points, strict=True)
    marker = "o" if len(rounds) <= _MOST_MARKERS // 2 else ""
    axis.plot(rounds, values, color=colour, linewidth=1.5, marker=marker, markersize=3)
    axis.set_title(
        f"{shown_name(name, 24)}  {figure_of(values[-1])}",
        loc="left",
        fontsize=8,
        color=_INK,
        pad=3,
        parse_math=False,
    )
    _bound(axis, name, values)
    axis.tick_params(labelsize=7)
    axis.yaxis.get_major_locator().set_params(nbins=3)


def _bound(axis: Any, name: str, values: Sequence[float]) -> None:
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    if _is_loss(name) and min(values) >= 0:
        axis.set_ylim(bottom=0)
    elif name.endswith("accuracy") and max(values) <= 1:
        axis.set_ylim(top=1)
    _plain_frame(axis)


def _draw_clients(axis: Any, record: RunRecord, left_out: Sequence[str]) -> None:
    """Draw the outcomes of the clients asked to train, stacked, by round."""
    rounds = [each.server_round for each in record.rounds]
    below = [0] * len(rounds)
    # Many bars must touch, as gaps would flicker.
    width = 0.7 if len(rounds) <= _MOST_MARKERS else 1.0
    for field, colour, hatch in _FATES:
        counts = [int(getattr(each.fit, field)) for each in record.rounds]
        if not any(counts):
            continue
        label = "answered" if field == "accepted" else field
        tops = [low + count for low, count in zip(below, counts, strict=True)]
        if len(rounds) > _MOST_BARS:
            axis.fill_between(
                rounds, below, tops, step="mid", color=colour, linewidth=0, label=label
            )
            below = tops
            continue
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
        below = tops
    axis.set_ylabel("clients", color=_INK)
    more = one_line(f"without a panel: {', '.join(left_out)}", 110) if left_out else ""
    axis.set_xlabel(f"round\n{more}".rstrip(), color=_INK, parse_math=False)
    axis.set_ylim(0, max([*below, 1]))
    axis.xaxis.get_major_locator().set_params(integer=True, nbins=12)
    axis.yaxis.get_major_locator().set_params(integer=True, nbins=3)
    # Right of the x axis's label, where there is space.
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
    """Draw a dashed line through all panels where clients were killed, up to round ``last``."""
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
    """Write the job in bold, and its subtitle below."""
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
    # A long line may be clipped; it must not squeeze the panels.
    subtitle.set_in_layout(False)
    figure.align_ylabels()


def _stopped(error: str | None) -> str:
    if error is None:
        return ""
    return error if error.startswith("stopped after") else "stopped by an error"


def _subtitle(record: RunRecord) -> str:
    """Return strategy, partition, model, seed, rounds and time, as far as recorded."""
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
        _stopped(record.error),
    ]
    return "  ·  ".join(part for part in parts if part)
