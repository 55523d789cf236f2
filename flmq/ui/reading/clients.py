"""The clients of a run: each one's presence, and its parts in the last rounds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from flmq.observe.eventlog.reader import Happened

__all__ = ["Task", "client_json", "clients_json"]

Task = dict[str, Any]
"""A part of a round, with its round and phase."""

_LAST = 500
_ERRORS = 20
_LOST = ("silent", "unroutable")


def clients_json(tasks: Iterable[Task], latest: Iterable[Happened]) -> list[dict[str, Any]]:
    """Return a line a client: those that were asked, and those that were seen."""
    by_client: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        by_client[task["client"]].append(task)
    presence = {each.who: each for each in latest}
    return [
        _line(client, by_client.get(client, ()), presence.get(client))
        for client in sorted(by_client.keys() | presence.keys())
    ]


def client_json(
    client: str,
    tasks: Sequence[Task],
    presence: Sequence[Happened],
) -> dict[str, Any]:
    """Return all that is shown of a client."""
    failed = [task for task in tasks if task["outcome"] in ("failed", "rejected")]
    return {
        **_line(client, tasks, presence[-1] if presence else None),
        "presence": [
            {"at_ms": each.at_unix_ms, "status": each.word, "reason": each.text}
            for each in presence
        ],
        "tasks": list(tasks[-_LAST:]),
        "errors": [
            {
                "round": task["round"],
                "phase": task["phase"],
                "at_ms": task["received_ms"],
                "reason": task["reason"],
                "detail": task["detail"],
            }
            for task in failed[-_ERRORS:]
        ],
        "metrics": _metrics(tasks),
    }


def _line(client: str, tasks: Sequence[Task], presence: Happened | None) -> dict[str, Any]:
    outcomes = Counter(task["outcome"] for task in tasks)
    took = [task["seconds"] for task in tasks if task["seconds"] is not None]
    offsets = [task for task in tasks if task["offset_ms"] is not None]
    errors = [task["reason"] for task in tasks if task["outcome"] in ("failed", "rejected")]
    return {
        "client": client,
        "status": None if presence is None else presence.word,
        "since_ms": None if presence is None else presence.at_unix_ms,
        "version": "" if presence is None else str(presence.numbers.get("version", "")),
        "offset_ms": offsets[-1]["offset_ms"] if offsets else None,
        "offset_error_ms": offsets[-1]["offset_error_ms"] if offsets else None,
        "answered": outcomes["accepted"],
        "failed": outcomes["failed"] + outcomes["rejected"],
        "silent": sum(outcomes[each] for each in _LOST),
        "late": outcomes["late"],
        "median_seconds": median(took) if took else None,
        "last_error": errors[-1] if errors else "",
    }


def _metrics(tasks: Iterable[Task]) -> dict[str, list[list[Any]]]:
    courses: dict[str, list[list[Any]]] = defaultdict(list)
    for task in tasks:
        for name, value in task["metrics"].items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                courses[f"{task['phase']}: {name}"].append([task["round"], value])
    return dict(courses)
