"""A table of the steps of a run without rounds: whose updates they were made of, and how stale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from flmq.journal.records import RoundRow
from flmq.observe.events import BufferedUpdate
from flmq.observe.past_rounds import buffer_of

__all__ = ["draw_buffers"]


def draw_buffers(rounds: Sequence[RoundRow]) -> Iterator[Table]:
    """Yield the table, if the run was one without rounds."""
    steps = [(row.server_round, buffer_of(row)) for row in rounds]
    if not any(updates for _, updates in steps):
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("step", justify="right")
    table.add_column("updates", justify="right")
    table.add_column("client (staleness)")
    for number, updates in steps:
        if updates:
            counted = sum(each.weight > 0 for each in updates)
            table.add_row(str(number), str(counted), ", ".join(map(_text, updates)))
    yield table


def _text(update: BufferedUpdate) -> str:
    dropped = "" if update.weight else ", dropped"
    return f"{update.client_id} ({update.staleness}{dropped})"
