"""The live view, drawn from synthetic events: fits its terminal, and says what happened."""

from __future__ import annotations

import io
from itertools import takewhile

import pytest
from rich.console import Console

from flmq.cli.view.drawing import draw_board, draw_summary
from flmq.cli.view.live import LiveView, choose_view
from flmq.cli.view.text import TextView
from flmq.observe.events import (
    BufferChanged,
    BufferedUpdate,
    ClientOutcome,
    ClientPresence,
    ClientsAwaited,
    ConnectionChanged,
    Note,
    Outcome,
    Phase,
    PhaseClosed,
    PhaseOpened,
    RoundClosed,
    RoundCounts,
    RunEnded,
    RunEvent,
    RunStarted,
)
from flmq.observe.run_state import Board, Cell
from tests.observe.synthetic import whole_run


def board_of(*events: RunEvent) -> Board:
    board = Board()
    for event in events:
        board.apply(event, 0.0)
    return board


def until(server_round: int, answered: int, num_clients: int) -> list[RunEvent]:
    """The run up to the moment when ``answered`` clients have replied in ``server_round``."""
    wanted = (server_round, f"client-{answered:02}")

    def goes_on(event: RunEvent) -> bool:
        match event:
            case ClientOutcome():
                return (event.server_round, event.client_id) != wanted
            case _:
                return True

    return list(takewhile(goes_on, whole_run(num_clients)))


def drawn(board: Board, now: float = 5.0, width: int = 80, height: int = 30) -> list[str]:
    console = Console(record=True, width=width, height=height, file=io.StringIO())
    console.print(draw_board(board, now, console.options))
    return [line.rstrip() for line in console.export_text().splitlines()]


def summary(board: Board) -> str:
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(draw_summary(board, console.options))
    return console.export_text()


@pytest.mark.parametrize("num_clients", [4, 10, 36, 100, 1000])
@pytest.mark.parametrize("width", [80, 120])
def test_the_board_fits_its_terminal_and_folds_what_is_too_much(
    num_clients: int, width: int
) -> None:
    lines = drawn(board_of(*until(9, 3, num_clients)), width=width, height=24)
    assert len(lines) <= 24
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)


def test_the_board_shows_rounds_clients_and_remarks() -> None:
    lines = drawn(board_of(*until(5, 4, 10)))
    assert "digits-calm-otter" in lines[0]
    assert "round 5/10" in lines[1]
    assert "8 online" in lines[1]
    assert lines[2].split()[:7] == (
        ["round", "asked", "answered", "failed", "silent", "loss", "accuracy"]
    )
    (fourth,) = (" ".join(line.split()) for line in lines if line.split()[:1] == ["4"])
    assert fourth == "4 10 8 · 2 0.801 0.918 0.9 s 0.03 0.03"
    text = "\n".join(lines)
    assert "□ 6 training" in text
    assert "■ 2 answered" in text
    assert "─ 2 silent" in text
    assert "15 s left" in text
    assert "■ client-00" in text
    assert "─ client-02" in text
    assert "replies connected: after 1.3 s" in text
    assert "2 clients silent in fit of round 4: client-02, client-03" in text


def test_of_many_rounds_the_latest_stay_in_sight() -> None:
    closed = [
        RoundClosed(at, 99, RoundCounts(3, 3), RoundCounts(), 1.0, {}, 1.0, 0, 0)
        for at in range(1, 60)
    ]
    lines = drawn(board_of(RunStarted("j", 99, "FedAvg", "in memory"), *closed), height=20)
    assert len(lines) <= 20
    assert any(line.split()[:1] == ["59"] for line in lines)
    assert "accuracy" not in "".join(lines)


def test_what_never_happens_has_no_column_and_what_does_has_one() -> None:
    counts = RoundCounts(asked=5, accepted=1, rejected=2, unroutable=2, late=1)
    closed = RoundClosed(1, 1, counts, RoundCounts(), 1.0, {"accuracy": 0.5}, 1.0, 0, 0)
    lines = drawn(board_of(RunStarted("j", 1, "FedAvg", "in memory"), closed))
    (head,) = (line for line in lines if "asked" in line)
    assert head.split()[5:7] == ["late", "other"]
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_a_client_that_goes_and_comes_changes_its_cell_until_it_has_answered() -> None:
    board = board_of(
        ClientPresence("a", "online", "", 2),
        ClientPresence("b", "away", "", 1),
        PhaseOpened(1, Phase.FIT, ("a", "b"), None),
    )
    assert board.stage is not None
    assert board.stage.cells == {"a": Cell.BUSY, "b": Cell.AWAY}
    board.apply(ClientPresence("a", "away", "", 0), 1.0)
    board.apply(ClientPresence("b", "online", "", 1), 1.0)
    assert board.stage.cells == {"a": Cell.AWAY, "b": Cell.BUSY}
    board.apply(ClientOutcome(1, Phase.FIT, "b", Outcome.ACCEPTED), 2.0)
    board.apply(ClientPresence("b", "gone", "", 0), 2.0)
    assert board.stage.cells["b"] is Cell.ANSWERED


@pytest.mark.parametrize(
    ("outcome", "cell"),
    [
        (Outcome.ACCEPTED, Cell.ANSWERED),
        (Outcome.FAILED, Cell.FAILED),
        (Outcome.REJECTED, Cell.FAILED),
        (Outcome.SILENT, Cell.SILENT),
        (Outcome.UNROUTABLE, Cell.AWAY),
        (Outcome.LATE, Cell.BUSY),
        (Outcome.DUPLICATE, Cell.BUSY),
    ],
)
def test_every_outcome_has_its_cell(outcome: Outcome, cell: Cell) -> None:
    board = board_of(
        PhaseOpened(2, Phase.FIT, ("a",), None), ClientOutcome(2, Phase.FIT, "a", outcome)
    )
    assert board.stage is not None
    assert board.stage.cells == {"a": cell}


def test_the_unheard_of_a_phase_share_one_remark() -> None:
    silent = [ClientOutcome(1, Phase.FIT, name, Outcome.SILENT, "no reply") for name in "abc"]
    board = board_of(Note("one"), *silent, ClientOutcome(1, Phase.FIT, "d", Outcome.UNROUTABLE))
    assert [remark.text for _, remark in board.remarks] == [
        "one",
        "3 clients silent in fit of round 1: a, b, c",
        "d unroutable in fit of round 1",
    ]


def test_an_outcome_of_another_phase_or_a_stranger_changes_no_cell() -> None:
    board = board_of(
        PhaseOpened(2, Phase.FIT, ("a",), None),
        ClientOutcome(1, Phase.FIT, "a", Outcome.FAILED),
        ClientOutcome(2, Phase.EVALUATE, "a", Outcome.FAILED),
        ClientOutcome(2, Phase.FIT, "x", Outcome.FAILED),
    )
    assert board.stage is not None
    assert board.stage.cells == {"a": Cell.BUSY}


def test_a_broken_connection_is_in_the_header_until_it_is_back() -> None:
    board = board_of(ConnectionChanged("replies", "lost", "reset"))
    assert "replies lost" in drawn(board)[1]
    board.apply(ConnectionChanged("replies", "connected", ""), 1.0)
    assert "replies" not in drawn(board)[1]


def test_the_summary_says_what_became_of_everything() -> None:
    text = summary(board_of(*whole_run()))
    assert "finished  10 of 10 rounds in 9.3 s" in text
    assert "100 tasks, 85 answered, 1 failed, 14 silent, 1 late" in text
    assert "0.942" in text
    assert "0.27 MB down, 0.26 MB up" in text
    assert "…" not in text


def test_late_replies_are_counted_in_the_round_that_asked_for_them() -> None:
    asked = RoundCounts(asked=2, accepted=1, silent=1)
    late = ClientOutcome(1, Phase.FIT, "a", Outcome.LATE, "1.0 s after the round closed")
    again = ClientOutcome(1, Phase.FIT, "a", Outcome.DUPLICATE)
    first, second = (
        RoundClosed(number, 2, asked, RoundCounts(), None, {}, 1.0, 0, 0) for number in (1, 2)
    )
    # One comes while the first round is measured, one when it is over.
    board = board_of(RunStarted("j", 2, "FedAvg", "in memory"), late, first, again, second)
    assert [closed.fit.late for closed in board.rounds] == [1, 0]
    assert [closed.fit.duplicate for closed in board.rounds] == [1, 0]


def test_the_summary_says_what_was_lost_on_the_way() -> None:
    fit = RoundCounts(asked=2, accepted=1, silent=1, carried=1)
    closed = RoundClosed(1, 1, fit, RoundCounts(), None, {}, 1.0, 0, 0, "", 1, 2)
    ended = RunEnded("j", 1, 1.0, incomplete_uploads=1, stray_chunks=2)
    board = board_of(RunStarted("j", 1, "FedAvg", "in memory"), closed, ended)
    assert "1 incomplete uploads were discarded" in "\n".join(drawn(board))
    assert "1 incomplete uploads, 2 stray chunks" in summary(board)
    assert "2 tasks, 1 answered, 1 silent, 1 carried" in summary(board)


def test_the_summary_of_a_failed_run_gives_the_reason() -> None:
    text = summary(board_of(RunEnded("j", 0, 1.0, "NotEnoughClients: [bold]3[/bold] are needed")))
    assert "failed" in text
    assert "NotEnoughClients: [bold]3[/bold] are needed" in text


def test_the_live_view_leaves_a_summary_and_gives_the_terminal_back() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, height=30)
    with LiveView(console, clock=lambda: 0.0) as view:
        for event in whole_run():
            view(event)
    out = stream.getvalue()
    assert out.count("finished") == 1
    hidden, shown = out.rfind("\x1b[?25l"), out.rfind("\x1b[?25h")
    assert 0 <= hidden < shown


def test_a_run_that_is_cut_off_leaves_its_rounds_and_says_so() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, height=30)
    with LiveView(console, clock=lambda: 0.0) as view:
        for event in until(3, 2, 10):
            view(event)
    tail = stream.getvalue()[stream.getvalue().rfind("\x1b[?25h") :]
    assert "not finished" in tail
    assert "0.860" in tail


def test_a_terminal_gets_the_live_view_and_anything_else_plain_lines() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm"})
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    stream = io.StringIO()
    pipe = Console(file=stream)
    assert isinstance(choose_view(terminal), LiveView)
    assert isinstance(choose_view(dumb), TextView)
    view = choose_view(pipe)
    view(Note("hello"))
    assert stream.getvalue() == "note hello\n"


def test_a_terminal_without_unicode_gets_lines_that_it_can_show() -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), force_terminal=True)
    view = choose_view(console)
    assert isinstance(view, TextView)
    view(Note("it is 5 °C"))
    assert raw.getvalue() == b"note it is 5 \\xb0C\n"


MEASURED = RoundClosed(
    1,
    2,
    RoundCounts(5, 3, 1, 0, 1),
    RoundCounts(),
    0.5,
    {"accuracy": 0.75, "auc": 0.625, "recall": 0.375, "f1": 0.25},
    1.0,
    2_000_000,
    1_000_000,
    fit_metrics={"train_loss": 0.125},
)


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (60, "round answered failed silent loss accuracy auc f1"),
        (80, "round asked answered failed silent loss accuracy auc f1 recall time"),
        (
            120,
            (
                "round asked answered failed silent loss accuracy auc f1 recall fit_train_loss "
                "time MB down MB up"
            ),
        ),
    ],
)
def test_where_there_is_little_room_megabytes_go_and_figures_stay(width: int, columns: str) -> None:
    lines = drawn(board_of(RunStarted("j", 2, "FedAvg", "in memory"), MEASURED), width=width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    (head,) = (line for line in lines if "answered" in line)
    assert " ".join(head.split()) == columns
    also = "".join(line for line in lines if "also:" in line)
    for name in ("fit_train_loss", "recall"):
        assert (name in also) == (name not in columns)


def test_the_summary_has_every_measure_at_every_width() -> None:
    ended = RunEnded("j", 2, 1.0, None, 0.5, {"accuracy": 0.75})
    text = summary(board_of(RunStarted("j", 2, "FedAvg", "in memory"), MEASURED, ended))
    words = " ".join(text.replace("│", " ").split())
    for shown in ("loss 0.500", "accuracy 0.750", "auc 0.625", "recall 0.375", "f1 0.250"):
        assert shown in words
    assert "fit_train_loss 0.125" in words


def test_measures_of_training_alone_have_columns() -> None:
    closed = RoundClosed(
        1,
        1,
        RoundCounts(1, 1),
        RoundCounts(),
        None,
        {},
        1.0,
        0,
        0,
        fit_metrics={"train_loss": 0.125},
    )
    lines = drawn(board_of(RunStarted("j", 1, "FedAvg", "in memory"), closed))
    assert "fit_train_loss" in next(line for line in lines if "answered" in line)


def test_whom_the_server_waits_for_is_in_sight_with_numbers() -> None:
    started = RunStarted("j", 2, "FedAvg", "in memory")
    board = board_of(started, ClientsAwaited(3, 0))
    assert "waiting for clients: 0 of 3 are here" in "\n".join(drawn(board))
    board.apply(ClientPresence("a", "online", "hello", 1), 1.0)
    assert "waiting for clients: 1 of 3 are here" in "\n".join(drawn(board))
    board.apply(PhaseOpened(1, Phase.FIT, ("a",), None), 2.0)
    assert "waiting" not in "\n".join(drawn(board))


def test_a_phase_that_is_over_does_not_stay_in_sight() -> None:
    counts = RoundCounts(1, 1)
    board = board_of(
        RunStarted("j", 2, "FedAvg", "in memory"),
        PhaseOpened(1, Phase.FIT, ("a",), None),
        ClientOutcome(1, Phase.FIT, "a", Outcome.ACCEPTED),
        PhaseClosed(1, Phase.FIT, counts, 1.0, 0, 0, "all answered"),
    )
    assert "■ a" in "\n".join(drawn(board, now=0.5))
    later = "\n".join(drawn(board, now=4.0))
    assert "fit closed (all answered): aggregating and measuring, 4 s" in later
    assert "■" not in later
    board.apply(RoundClosed(1, 2, counts, RoundCounts(), None, {}, 1.0, 0, 0), 5.0)
    assert "round 1 is over: planning the next" in "\n".join(drawn(board, now=6.0))
    board.apply(ClientsAwaited(2, 1), 6.0)
    assert "waiting for clients: 1 of 2 are here" in "\n".join(drawn(board, now=6.0))


def test_a_run_that_was_stopped_has_not_failed() -> None:
    closed = RoundClosed(7, 9, RoundCounts(2, 2), RoundCounts(), 0.5, {}, 1.0, 0, 0)
    board = board_of(
        RunStarted("j", 9, "FedAvg", "in memory", (closed,)),
        PhaseOpened(8, Phase.FIT, ("a", "b"), None),
        ClientOutcome(8, Phase.FIT, "a", Outcome.ACCEPTED),
        RunEnded("j", 7, 65.0, "stopped after round 7", stopped=True),
    )
    text = summary(board)
    assert "stopped after round 7 of 9, 65.0 s" in text
    assert "fit of round 8: 1 of 2 had answered" in text
    assert "2 tasks, 2 answered" in text
    assert "run  failed" not in text
    assert "error" not in text


UPDATES = (
    BufferedUpdate("a", 3, 500_000, 0, 1.0),
    BufferedUpdate("b", 1, 500_001, 2, 0.5),
    BufferedUpdate("c", 1, 500_002, 9, 0.0),
)


def test_a_run_without_rounds_shows_its_buffer_its_staleness_and_who_is_busy() -> None:
    board = board_of(
        RunStarted("job", 5, "FedBuff", "in memory"),
        ClientPresence("d", "online", "said hello", 1),
        PhaseOpened(3, Phase.FIT, ("a",), None),
        BufferChanged(3, 4, UPDATES, ("a", "d"), ("e",)),
        # What asks do one by one changes nothing of who is busy.
        PhaseOpened(3, Phase.FIT, ("f",), None),
        PhaseClosed(3, Phase.FIT, RoundCounts(1, 1), 0.1, 0, 0, "all answered"),
    )
    lines = drawn(board)
    assert any(
        "buffer" in line and "■■□□ 2/4  staleness 0, 2  1 too stale" in line for line in lines
    )
    assert board.stage is not None
    assert board.stage.cells == {"a": Cell.BUSY, "d": Cell.BUSY, "e": Cell.FAILED}
    assert any("2 training" in line and "1 failed" in line for line in lines)
    board.apply(PhaseOpened(3, Phase.EVALUATE, ("a",), None), 0.0)
    assert not any("buffer" in line for line in drawn(board))
