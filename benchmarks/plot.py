"""The picture of a report: a round's seconds, contestant by contestant, and the server's memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.cells import Cell, size_name
from benchmarks.contenders import CONTESTANTS
from benchmarks.results import Outcome, Report, paired_ratio

__all__ = ["draw"]

# Okabe and Ito's colours, which colour-blind eyes tell apart.
_COLOURS = {"flmq": "#0072B2", "flower": "#E69F00", "pika": "#b8b8b8", "pika-tuned": "#d8d8d8"}
_INK = "#333333"
_FAINT = "#8a8a8a"
_WIDTH, _PANEL_HEIGHT = 10.0, 1.75


def draw(report: Report, path: Path) -> None:
    """Write a PNG (or what ``path``'s suffix says) of ``report``, which has rounds."""
    # Without pyplot: no global state, no window.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cells = list(dict.fromkeys(each.cell for each in report.speed))
    height = _PANEL_HEIGHT * max(len(cells), 2) + 0.9
    figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    halves: Any = figure.subfigures(1, 2, width_ratios=[3, 2], wspace=0.04)
    left, right = halves
    panels = left.subplots(len(cells), 1, squeeze=False)[:, 0]
    for axis, cell in zip(panels, cells, strict=True):
        _draw_rounds(axis, cell, [each for each in report.speed if each.cell == cell])
    panels[-1].set_xlabel("seconds a round; a dot is a round, a bar their median", color=_INK)
    left.suptitle("A round, clients x model", x=0.01, ha="left", fontweight="bold", color=_INK)
    axis = right.subplots()
    right.suptitle("The server's memory", x=0.01, ha="left", fontweight="bold", color=_INK)
    _draw_memory(axis, report.memory or report.speed)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _draw_rounds(axis: Any, cell: Cell, outcomes: list[Outcome]) -> None:
    shown = [each for each in outcomes if each.rounds and not each.failed]
    own = next((each for each in shown if each.contestant == "flmq"), None)
    # A round that the machine was away for must not flatten all bars: it is past the edge.
    edge = 1.5 * max((each.seconds or 0.0) for each in shown)
    for row, each in enumerate(shown):
        seconds = each.seconds or 0.0
        axis.barh(row, seconds, 0.66, color=_COLOURS[each.contestant])
        dots = [one.seconds for one in each.rounds if one.seconds <= edge]
        axis.plot(dots, [row] * len(dots), "o", ms=3, mfc="white", mec=_INK, mew=0.6, clip_on=False)
        label = f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
        if own is not None and each is not own:
            label += f"   flmq: {paired_ratio(own, each):.2g} x that"
        place = max([seconds, *dots])
        axis.annotate(
            label, (place, row), (7, 0), textcoords="offset points", va="center", color=_INK, size=9
        )
    _tidy(axis, grid="x")
    axis.set_yticks(range(len(shown)), [CONTESTANTS[each.contestant].label for each in shown])
    for text, each in zip(axis.get_yticklabels(), shown, strict=True):
        text.set_color(_INK)
        text.set_fontweight("bold" if each.contestant == "flmq" else "normal")
    axis.invert_yaxis()
    # Room for the words behind the longest bar.
    axis.set_xlim(0, 1.15 * edge)
    axis.set_title(str(cell), loc="left", size=10, color=_INK)
    axis.tick_params(axis="y", length=0)


def _draw_memory(axis: Any, outcomes: tuple[Outcome, ...]) -> None:
    most_clients = max(each.cell.clients for each in outcomes)
    sizes = {each.cell.model_bytes for each in outcomes}
    for name, contestant in CONTESTANTS.items():
        points = sorted(
            (each.cell.clients, each.memory / 1e9)
            for each in outcomes
            if each.contestant == name and each.memory is not None and name in ("flmq", "flower")
        )
        if not points:
            continue
        axis.plot(*zip(*points, strict=True), "o-", color=_COLOURS[name], lw=2.2, ms=6)
        clients, memory = points[-1]
        words = f"{contestant.label}, {memory:.1f} GB"
        axis.annotate(
            words,
            (clients, memory),
            (0, 9),
            textcoords="offset points",
            ha="right" if clients > most_clients / 2 else "center",
            color=_COLOURS[name],
            weight="bold",
            size=10,
        )
    axis.set_xlim(0, 1.06 * most_clients)
    axis.set_ylim(0, 1.18 * axis.get_ylim()[1])
    of_what = f"a {size_name(sizes.pop())} model" if len(sizes) == 1 else "several models"
    axis.set_title(f"peak above idle, GB, {of_what}", loc="left", size=10, color=_INK)
    axis.set_xlabel("clients", color=_INK)
    _tidy(axis, grid="y")


def _tidy(axis: Any, grid: str) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(_FAINT)
    axis.tick_params(colors=_FAINT)
    axis.grid(axis=grid, color="#e6e6e6", lw=0.8)
    axis.set_axisbelow(True)
