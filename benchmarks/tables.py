"""A report as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.cells import Cell
from benchmarks.contenders import CONTESTANTS
from benchmarks.results import Outcome, Report, paired_ratio

__all__ = ["cpu_table", "machine_table", "memory_table", "speed_table", "traffic_table"]

_MISSING = "-"


def machine_table(report: Report) -> str:
    """What the figures were measured on."""
    return _table(["what", "which"], list(map(list, report.machine.items())), left=2)


def speed_table(report: Report) -> str:
    """Seconds a round, and flmq's share of each other contestant's."""
    present = _present(report.speed)
    others = [name for name in present if name != "flmq"]
    head = ["clients x model", *(f"{_label(name)}, s" for name in present)]
    head += [f"flmq / {_label(name)}" for name in others] if "flmq" in present else []
    rows = []
    for cell in _cells(report.speed):
        seconds = {name: _get(report, report.speed, name, cell) for name in present}
        row = [str(cell)]
        row += [_number(None if each is None else each.seconds) for each in seconds.values()]
        if "flmq" in present:
            row += [_ratio(seconds["flmq"], seconds[name]) for name in others]
        rows.append(row)
    return _table(head, rows) + _exactness(report.speed) + _failures(report.speed)


def memory_table(report: Report) -> str:
    """The server's peak above its idle size, by number of clients."""
    outcomes = report.memory or report.speed
    present = _present(outcomes)
    head = ["clients x model"]
    for name in present:
        head += [f"{_label(name)}, MB", "x model"]
    rows = []
    for cell in _cells(outcomes):
        row = [str(cell)]
        for name in present:
            outcome = _get(report, outcomes, name, cell)
            memory = None if outcome is None else outcome.memory
            row.append(_MISSING if memory is None else f"{memory / 1e6:.0f}")
            row.append(_MISSING if memory is None else f"{memory / cell.model_bytes:.1f}")
        rows.append(row)
    return _table(head, rows) + _failures(outcomes)


def cpu_table(report: Report) -> str:
    """CPU seconds a round: the server's, all clients', the broker's."""
    present = _present(report.speed)
    rows = []
    for cell in _cells(report.speed):
        for name in present:
            outcome = _get(report, report.speed, name, cell)
            if outcome is None or not outcome.rounds:
                continue
            parts = [
                outcome.median(lambda each: each.server_cpu),
                outcome.median(lambda each: each.clients_cpu),
                outcome.median(lambda each: each.broker_cpu),
            ]
            known = [part for part in parts if part is not None]
            total = _number(sum(known)) if len(known) == len(parts) else _MISSING
            rows.append([str(cell), _label(name), *map(_number, parts), total])
    head = ["clients x model", "", "server, s", "clients, s", "broker, s", "together, s"]
    return _table(head, rows, left=2)


def traffic_table(report: Report) -> str:
    """Bytes a round into the broker, in models."""
    present = [name for name in _present(report.speed) if CONTESTANTS[name].on_broker]
    head = ["clients x model"]
    for name in present:
        head += [f"{_label(name)}: server", "a client"]
    rows = []
    for cell in _cells(report.speed):
        row = [str(cell)]
        for name in present:
            outcome = _get(report, report.speed, name, cell)
            sent = (None, None) if outcome is None else (outcome.server_sent, outcome.clients_sent)
            for value, senders in zip(sent, (1, cell.clients), strict=True):
                models = None if value is None else value / senders / cell.model_bytes
                row.append(_MISSING if models is None else f"{models:.3f}")
        rows.append(row)
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    marks = ["---" if number < left else "---:" for number in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, marks, *rows]) + "\n"


def _exactness(outcomes: Iterable[Outcome]) -> str:
    """Whether a mean of equal models was that model, of those who make means."""
    found: dict[str, set[bool]] = {}
    for each in outcomes:
        if each.exact is not None:
            found.setdefault(each.contestant, set()).add(each.exact)
    words = [
        f"{_label(name)}: {'the same bits' if all(answers) else 'other bits'}"
        for name, answers in found.items()
    ]
    return f"\nThe mean of equal models: {', '.join(words)}.\n" if words else ""


def _failures(outcomes: Iterable[Outcome]) -> str:
    lines = [
        f"- {_label(each.contestant)}, {each.cell}: {each.failed}"
        for each in outcomes
        if each.failed
    ]
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def _present(outcomes: Iterable[Outcome]) -> list[str]:
    """Contestants with a figure, in the order of CONTESTANTS."""
    with_figures = {each.contestant for each in outcomes if each.rounds}
    return [name for name in CONTESTANTS if name in with_figures]


def _cells(outcomes: Iterable[Outcome]) -> list[Cell]:
    return list(dict.fromkeys(each.cell for each in outcomes))


def _get(report: Report, outcomes: tuple[Outcome, ...], name: str, cell: Cell) -> Outcome | None:
    outcome = report.of(outcomes, name, cell)
    return None if outcome is None or outcome.failed else outcome


def _label(name: str) -> str:
    return CONTESTANTS[name].label


def _number(value: float | None) -> str:
    if value is None:
        return _MISSING
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def _ratio(one: Outcome | None, other: Outcome | None) -> str:
    if one is None or other is None or not one.rounds or not other.rounds:
        return _MISSING
    return f"{paired_ratio(one, other):.2f}"
