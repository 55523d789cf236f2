"""Draw a task's states and a reply's fates into ``docs/architecture.md``: ``make round``.

The diagrams come from the tables that the machines run on; ``tests/docs/test_round_diagram.py``
fails when the page is out of date.
"""

from __future__ import annotations

from pathlib import Path

from flmq.round.fates import STAGES, STEPS, Fate
from flmq.round.state import TASK_TRANSITIONS, TaskEvent, TaskState

PAGE = Path(__file__).resolve().parent.parent / "docs" / "architecture.md"
BEGIN = "<!-- Drawn by scripts/draw_round.py from flmq.round.state; do not edit. -->\n"
END = "<!-- End of what scripts/draw_round.py draws. -->\n"

FATES_BEGIN = "<!-- Drawn by scripts/draw_round.py from flmq.round.fates; do not edit. -->\n"
FATES_END = "<!-- End of the fates that scripts/draw_round.py draws. -->\n"

_SAID = {
    "ReplyAccepted": "a reply that counts",
    "ReplyFailed": "the client could not",
    "ReplyRejected": "a reply that does not fit",
    "TaskUnroutable": "no queue",
    "_Closing": "the round closes",
}


def diagram() -> str:
    """The diagram in Mermaid, which GitHub shows as a picture."""
    lines = ["stateDiagram-v2", f"    [*] --> {_name(TaskState.PENDING)}: the task is published"]
    for state, row in TASK_TRANSITIONS.items():
        steps = [(event, *step) for event, step in row.items() if step[0] is not None]
        for event, target, word in steps:
            alike = [step[0] for step in steps if step[1:] == (target, word)]
            what = _SAID[_event(event)] if len(alike) == 1 else "a reply"
            said = "" if word is None else f" / {word.value}"
            line = f"    {_name(state)} --> {_name(target)}: {what}{said}"
            if line not in lines:
                lines.append(line)
    for state, row in TASK_TRANSITIONS.items():
        words = sorted({word.value for target, word in row.values() if target is None and word})
        if words:
            lines.append(f"    {_name(state)} --> {_name(state)}: a further reply / {words[0]}")
    return "\n".join(["```mermaid", *lines, "```", ""])


def fates() -> str:
    """Each stage of an ask, what a reply to it is, and what is done about that."""
    lines = ["flowchart LR", "    reply((a reply))"]
    for stage, fate in STAGES.items():
        lines.append(f'    reply -- "its ask is {stage.value}" --> {fate.name}[{fate.value}]')
    wanted, late = Fate.LATE_WANTED, Fate.LATE
    lines.append(f'    {late.name} -- "a round can count it" --> {wanted.name}[{wanted.value}]')
    for fate, steps in STEPS.items():
        done = " · ".join(step.value for step in steps) or "wait for the closing set"
        lines.append(f"    {fate.name} --> {fate.name}_does[/{done}/]")
    return "\n".join(["```mermaid", *lines, "```", ""])


def drawn_into(page: str) -> str:
    """The text ``page`` with both diagrams in their places.

    Raises:
        ValueError: the page has no place for one.
    """
    page = _between(page, FATES_BEGIN, FATES_END, fates())
    return _between(page, BEGIN, END, diagram())


def _between(page: str, first: str, last: str, drawn: str) -> str:
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"the page lacks the lines {first.strip()} and {last.strip()}")
    return f"{before}{begin}\n{drawn}\n{end}{after}"


def _name(state: TaskState | None) -> str:
    assert state is not None
    return state.value.capitalize()


def _event(event: TaskEvent) -> str:
    return event.__name__


if __name__ == "__main__":
    PAGE.write_text(drawn_into(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
