"""Draw a run's state as rich renderables, for one client or a thousand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich import box
from rich.console import ConsoleOptions, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from flmq.cli.view.roundtable import draw_rounds, megabytes
from flmq.common.cleaning import one_line
from flmq.common.durations import clock_text
from flmq.observe.events import Phase, RoundCounts, RunEnded
from flmq.observe.measures import figure, final_measures, measures_of
from flmq.observe.run_state import Board, Cell, Stage

__all__ = ["draw_board", "draw_summary"]

_STYLES = {
    Cell.BUSY: "cyan",
    Cell.ANSWERED: "green",
    Cell.FAILED: "bold red",
    Cell.SILENT: "yellow",
    Cell.AWAY: "dim",
}
# Different in shape too, for people and terminals that do not see colours.
_GLYPHS = {
    Cell.BUSY: "□",
    Cell.ANSWERED: "■",
    Cell.FAILED: "✗",
    Cell.SILENT: "─",
    Cell.AWAY: "○",
}
_BUSY_WORDS = {Phase.FIT: "training", Phase.EVALUATE: "evaluating"}

_MOST_NAMED = 20
"""Maximum number of clients shown by name; more are shown as glyphs."""
_MOST_GLYPHS = 400
"""Maximum number of clients shown by a glyph each; more are shown as a proportional bar."""
_REMARKS_SHOWN = 4
_ROUNDS_IN_SUMMARY = 50
_STAYS = 1.0
"""Seconds for which a closed phase stays visible."""
_MEASURES_BY_LINE = 6
_MEASURES_IN_ALL = 60


def draw_board(board: Board, now: float, options: ConsoleOptions) -> RenderableType:
    """Draw the board at ``now`` (monotonic seconds), to fit the height of ``options``."""
    above = _header(board, now, options)
    below: list[RenderableType] = [*_stage(board, now, options), *_remarks(board)]
    # Everything but the table is one line each; the table's head takes two, measurements without a
    # column one, the cursor one.
    room = max(1, (options.height or options.size.height) - len(above) - len(below) - 4)
    table, left_out = draw_rounds(board.rounds[-room:], options.max_width)
    return Group(*above, table, *left_out, *below)


def draw_summary(board: Board, options: ConsoleOptions) -> RenderableType:
    """Draw what stays in the terminal when the run is over."""
    rounds = board.rounds[-_ROUNDS_IN_SUMMARY:]
    # Measurements that do not fit the table are in the totals below it.
    table, _ = draw_rounds(rounds, options.max_width)
    parts: list[RenderableType] = [_title(board), table]
    if len(rounds) < len(board.rounds):
        left_out = len(board.rounds) - len(rounds)
        parts.insert(1, Text(f" {left_out} earlier rounds are in the run's record", style="dim"))
    parts.append(_totals(board))
    return Group(*parts)


def _title(board: Board) -> Text:
    started = board.started
    if started is None:
        return Text(" flmq", style="bold")
    return Text.assemble(
        (" flmq", "bold"),
        (f"  {started.job}", "bold cyan"),
        (f"  {one_line(started.strategy, 30)}  {one_line(started.broker, 60)}", "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )


def _header(board: Board, now: float, options: ConsoleOptions) -> list[RenderableType]:
    total = board.started.num_rounds if board.started else 0
    done = len(board.rounds)
    running = board.stage.server_round if board.stage else done
    left = Text(f" round {min(max(running, done), total)}/{total} ")
    right = Text(f" {clock_text(now - board.started_at)}  {board.online} online", style="dim")
    for role, state in sorted(board.connections.items()):
        right.append(f"  {role} {state}", style="bold red")
    width = max(10, options.max_width - left.cell_len - right.cell_len - 1)
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(width=width)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_row(
        left,
        ProgressBar(total=max(total, 1), completed=done, width=width, complete_style="cyan"),
        right,
    )
    return [_title(board), grid]


def _stage(board: Board, now: float, options: ConsoleOptions) -> list[RenderableType]:
    """Draw the open phase: its counts and its clients."""
    stage = board.stage
    if stage is None or _is_old(stage, now):
        return [Rule(style="dim"), _between(board, now)]
    line = Text(f" {stage.phase.value} ", style="bold", no_wrap=True, overflow="ellipsis")
    counts = stage.count()
    for cell in Cell:
        if counts[cell]:
            word = _BUSY_WORDS.get(stage.phase, "busy") if cell is Cell.BUSY else cell.value
            line.append(f" {_GLYPHS[cell]} {counts[cell]} {word} ", style=_STYLES[cell])
    line.append(_time_left(stage, now), style="dim")
    return [Rule(style="dim"), line, *_buffer(board, stage), *_strip(stage, options)]


def _buffer(board: Board, stage: Stage) -> list[RenderableType]:
    """Draw the buffer of a run without rounds: how full it is, and how stale its updates are."""
    buffer = board.buffer
    if buffer is None or stage.phase is not Phase.FIT:
        return []
    counted = [each.staleness for each in buffer.updates if each.weight]
    line = Text(" buffer ", style="bold", no_wrap=True, overflow="ellipsis")
    if buffer.size <= _MOST_NAMED:
        line.append(f" {_GLYPHS[Cell.ANSWERED] * len(counted)}", style=_STYLES[Cell.ANSWERED])
        line.append(_GLYPHS[Cell.BUSY] * (buffer.size - len(counted)), style="dim")
    line.append(f" {len(counted)}/{buffer.size}")
    if counted:
        line.append(f"  staleness {', '.join(map(str, counted[-_MOST_NAMED:]))}", style="dim")
    if dropped := len(buffer.updates) - len(counted):
        line.append(f"  {dropped} too stale", style="yellow")
    return [line]


def _is_old(stage: Stage, now: float) -> bool:
    """Return whether a phase closed so long ago that it no longer shows what happens now."""
    return stage.closed is not None and now - stage.closed_at > _STAYS


def _between(board: Board, now: float) -> Text:
    """Return text on what the server does while no phase is open."""
    stage = board.stage
    if board.awaited is not None:
        missing = f"waiting for clients: {board.online} of {board.awaited} are here"
        return Text(f" {missing}", style="yellow" if board.online < board.awaited else "dim")
    if stage is None:
        return Text(" preparing the first round", style="dim")
    since = f"{now - stage.closed_at:.0f} s"
    if board.rounds and board.rounds[-1].server_round >= stage.server_round:
        return Text(f" round {stage.server_round} is over: planning the next, {since}", style="dim")
    doing = "aggregating and measuring" if stage.phase is Phase.FIT else "working on the replies"
    return Text(f" {stage.phase.value} closed ({stage.closed}): {doing}, {since}", style="dim")


def _time_left(stage: Stage, now: float) -> str:
    if stage.closed is not None:
        return f" closed: {one_line(stage.closed, 40)}"
    if stage.deadline is None:
        return f" {now - stage.opened:.0f} s"
    return f" {max(0.0, stage.deadline - now):.0f} s left"


def _strip(stage: Stage, options: ConsoleOptions) -> list[RenderableType]:
    """Draw a cell per client: by name while they are few, by glyph, then as a proportional bar."""
    if len(stage.cells) > _MOST_GLYPHS:
        return [_proportions(stage.count(), options.max_width - 2)]
    if len(stage.cells) > _MOST_NAMED:
        return list(_rows_of_glyphs(list(stage.cells.values()), options.max_width - 2))
    return list(_rows_of_names(stage.cells, options.max_width - 1))


def _rows_of_names(cells: dict[str, Cell], width: int) -> Iterable[Text]:
    # Names are cut to the same width, so that the cells are aligned in columns.
    longest = min(max(map(len, cells), default=0), 22)
    a_row = max(1, width // (longest + 4))
    names = list(cells.items())
    for start in range(0, len(names), a_row):
        row = Text(" ", no_wrap=True)
        for name, cell in names[start : start + a_row]:
            row.append(f"{_GLYPHS[cell]} {one_line(name, longest):<{longest}}  ", _STYLES[cell])
        yield row


def _rows_of_glyphs(cells: list[Cell], width: int) -> Iterable[Text]:
    """Draw glyphs in groups of ten, so that clients can be counted."""
    a_row = max(10, (width + 1) // 11 * 10)
    for start in range(0, len(cells), a_row):
        row = Text(" ", no_wrap=True)
        for position, cell in enumerate(cells[start : start + a_row]):
            row.append(" " if position and position % 10 == 0 else "")
            row.append(_GLYPHS[cell], _STYLES[cell])
        yield row


def _proportions(counts: Counter[Cell], width: int) -> Text:
    """Draw a bar of ``width``; every state that occurs gets at least one glyph."""
    total = max(1, counts.total())
    bar = Text(" ", no_wrap=True)
    for cell in (Cell.ANSWERED, Cell.FAILED, Cell.SILENT, Cell.BUSY, Cell.AWAY):
        if counts[cell]:
            bar.append(_GLYPHS[cell] * max(1, counts[cell] * (width - 5) // total), _STYLES[cell])
    return bar


def _remarks(board: Board) -> list[RenderableType]:
    latest = list(board.remarks)[-_REMARKS_SHOWN:]
    if not latest:
        return []
    lines: list[RenderableType] = [Rule(style="dim")]
    for at, remark in latest:
        line = Text(f" {clock_text(at)} ", style="dim", no_wrap=True, overflow="ellipsis")
        line.append(remark.text, style="none" if remark.good else "yellow")
        lines.append(line)
    return lines


def _totals(board: Board) -> RenderableType:
    """Summarize the run in a few lines: how it ended, the outcomes of all tasks, what it cost."""
    ended = board.ended
    if ended is None:
        return Text(" not finished", style="yellow")
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right")
    table.add_column()
    total = board.started.num_rounds if board.started else ended.rounds
    done = max(ended.rounds, len(board.rounds))
    table.add_row("run", _state(ended, done, total))
    if ended.stopped and board.stage is not None and board.stage.server_round > done:
        table.add_row("under way", _under_way(board.stage))
    if ended.stopped_early:
        table.add_row("stopped early", Text(one_line(ended.stopped_early)))
    if ended.error is not None and not ended.stopped:
        table.add_row("error", Text(one_line(ended.error), style="red"))
    _add_measures(table, board, ended)
    table.add_row("training", _tally([closed.fit for closed in board.rounds]))
    if any(closed.evaluate.asked for closed in board.rounds):
        table.add_row("evaluation", _tally([closed.evaluate for closed in board.rounds]))
    down = sum(closed.bytes_down for closed in board.rounds)
    up = sum(closed.bytes_up for closed in board.rounds)
    table.add_row("moved", Text(f"{megabytes(down)} MB down, {megabytes(up)} MB up"))
    if ended.incomplete_uploads or ended.stray_chunks:
        lost = f"{ended.incomplete_uploads} incomplete uploads, {ended.stray_chunks} stray chunks"
        table.add_row("discarded", Text(lost, style="yellow"))
    return Panel(table, box=box.ROUNDED, border_style="dim", expand=False)


def _state(ended: RunEnded, done: int, total: int) -> Text:
    if ended.stopped:
        state = Text(f"stopped after round {done}", style="bold yellow")
        return state.append(f" of {total}, {ended.seconds:.1f} s", style="none")
    failed = ended.error is not None
    state = Text("failed", style="bold red") if failed else Text("finished", style="bold green")
    return state.append(f"  {done} of {total} rounds in {ended.seconds:.1f} s", style="none")


def _under_way(stage: Stage) -> Text:
    answered = stage.count()[Cell.ANSWERED]
    where = f"{stage.phase.value} of round {stage.server_round}"
    return Text(f"{where}: {answered} of {len(stage.cells)} had answered")


def _add_measures(table: Table, board: Board, ended: RunEnded) -> None:
    """Add a line for each of the first measurements, and one for all others."""
    measures = dict(measures_of(board.rounds[-1])) if board.rounds else {}
    measures |= final_measures(ended)
    figures = {name: figure(value) for name, value in measures.items()}
    first = list(figures)[:_MEASURES_BY_LINE]
    for name in first:
        table.add_row(name, Text(figures[name], style="bold"))
    others = [f"{name} {shown}" for name, shown in figures.items() if name not in first]
    if others:
        more = len(others) - _MEASURES_IN_ALL
        others = others[:_MEASURES_IN_ALL] + ([f"{more} more in the record"] if more > 0 else [])
        table.add_row("also", Text(", ".join(others)))


def _tally(counts: list[RoundCounts]) -> Text:
    """Return the outcomes of all tasks of a kind, each with its number."""
    words = (
        "accepted",
        "failed",
        "rejected",
        "silent",
        "unroutable",
        "late",
        "duplicate",
        "carried",
    )
    asked = sum(each.asked for each in counts)
    line = Text(f"{asked} tasks")
    for word in words:
        number = sum(getattr(each, word) for each in counts)
        if number:
            shown = "answered" if word == "accepted" else word
            line.append(f", {number} {shown}", style="green" if word == "accepted" else "yellow")
    return line
