"""The table of rounds in a terminal: a line per round, and as many columns as fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from flmq.common.typing import Scalar
from flmq.observe.events import RoundClosed, RoundCounts
from flmq.observe.measures import figure, is_of_training, measures_of

__all__ = ["draw_rounds", "megabytes"]

_SURE_METRICS = 2
"""Number of metrics that are kept longer than counts of clients if space is short."""


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    rank: int
    """Columns with a lower value are dropped later."""
    cells: list[Text]

    @property
    def width(self) -> int:
        return max(len(self.name), *(cell.cell_len for cell in self.cells), 0)


def draw_rounds(rounds: Sequence[RoundClosed], width: int) -> tuple[Table, list[Text]]:
    """Return the table, and a line with the latest measurements that do not fit.

    What never occurred has no column. If space is short, megabytes are dropped first, then time,
    then measurements other than loss and first metrics, then counts of clients.
    """
    columns = _columns(rounds)
    shown = list(columns)
    while len(shown) > 1 and sum(each.width + 1 for each in shown) > width:
        shown.remove(max(shown, key=lambda column: column.rank))
    # The box adds one space between columns; use two if there is room.
    roomy = sum(each.width + 2 for each in shown) <= width
    padding = (0, 0, 0, 1) if roomy else (0, 0)
    table = Table(box=box.SIMPLE_HEAD, padding=padding, header_style="dim", show_edge=False)
    for column in shown:
        table.add_column(column.name, justify="right", no_wrap=True)
    for row in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*row)
    names = {column.name for column in shown}
    return table, _left_out(rounds, names)


def _left_out(rounds: Sequence[RoundClosed], shown: set[str]) -> list[Text]:
    latest = measures_of(rounds[-1]) if rounds else {}
    left = [f"{name} {figure(value)}" for name, value in latest.items() if name not in shown]
    if not left:
        return []
    return [Text(f" also: {', '.join(left)}", style="dim", no_wrap=True, overflow="ellipsis")]


def _columns(rounds: Sequence[RoundClosed]) -> list[_Column]:
    fits = [closed.fit for closed in rounds]
    columns = [
        _Column("round", 0, [Text(str(closed.server_round), style="bold") for closed in rounds]),
        _Column("asked", 500, [Text(str(each.asked)) for each in fits]),
        _Column("answered", 20, [_answered(each.accepted) for each in fits]),
        _Column("failed", 30, [_count(each.failed, "bold red") for each in fits]),
        _Column("silent", 31, [_count(each.silent, "yellow") for each in fits]),
    ]
    if any(each.late for each in fits):
        columns.append(_Column("late", 501, [_count(each.late, "yellow") for each in fits]))
    if any(map(_other, fits)):
        columns.append(_Column("other", 502, [_count(_other(each), "yellow") for each in fits]))
    return [
        *columns,
        *_measures(rounds),
        _Column("time", 1000, [Text(f"{closed.seconds:.1f} s") for closed in rounds]),
        _Column("MB down", 1001, [Text(megabytes(closed.bytes_down)) for closed in rounds]),
        _Column("MB up", 1002, [Text(megabytes(closed.bytes_up)) for closed in rounds]),
    ]


def _measures(rounds: Sequence[RoundClosed]) -> list[_Column]:
    """Return the columns of measurements, in the order of `measures_of`."""
    measured = [measures_of(closed) for closed in rounds]
    names: dict[str, None] = {"loss": None}
    for each in measured:
        names.update(dict.fromkeys(each))
    by_others = any(not is_of_training(name) for name in names if name != "loss")
    columns = []
    for place, name in enumerate(names):
        if name == "loss":
            rank = 1
        elif is_of_training(name) and by_others:
            rank = 2000 + place
        else:
            rank = 1 + place if place <= _SURE_METRICS else 100 + place
        columns.append(_Column(name, rank, [_measure(each.get(name)) for each in measured]))
    return columns


def _measure(value: Scalar | None) -> Text:
    return Text(figure(value))


def _answered(count: int) -> Text:
    return Text(str(count), style="green" if count else "bold red")


def _count(count: int, style: str) -> Text:
    return Text(str(count), style=style) if count else Text("·", style="dim")


def _other(counts: RoundCounts) -> int:
    return counts.rejected + counts.unroutable + counts.duplicate


def megabytes(count: int) -> str:
    """Return bytes in MB (10^6), with a readable number of digits."""
    amount = count / 1e6
    return f"{amount:.2f}" if amount < 100 else f"{amount:,.0f}"
