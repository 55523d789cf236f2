"""The parts of clients in the last rounds of runs, each round read once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from statistics import median

from flmq.ui.reading.befallen import away_of
from flmq.ui.reading.clients import Task
from flmq.ui.reading.rows import Away, brief_json, parts_json, phase_parts
from flmq.ui.reading.run import RunFiles
from flmq.ui.reading.versions import Version, version_of

__all__ = ["LAST_ROUNDS", "LastTasks"]

LAST_ROUNDS = 200
"""Rounds whose parts a client's page goes through; fewer where many are asked, of which at most
_MOST_PARTS parts are read, but _LEAST_ROUNDS."""
_LEAST_ROUNDS = 10
_MOST_PARTS = 20_000
_MOST_KNOWN = 8

_ByRound = dict[int, list[Task]]


class LastTasks:
    """Parts of the runs and clients that were asked for last. Thread-safe."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str | None], tuple[Version, _ByRound]] = {}

    def of(self, files: RunFiles, client: str | None) -> _ByRound:
        """Return what is told of a client's parts, or of all clients', in a run's last rounds.

        Raises:
            StoredDataError: the run cannot be read.
        """
        version, whose = version_of(files.folder), (files.folder.name, client)
        with self._lock:
            known_at, known = self._known.get(whose, (None, {}))
        if known_at == version:
            return known
        known = _read(files, client, known)
        with self._lock:
            self._known.pop(whose, None)  # the last used is the last in order
            self._known[whose] = version, known
            while len(self._known) > _MOST_KNOWN:
                del self._known[next(iter(self._known))]
        return known


def _read(files: RunFiles, client: str | None, known: _ByRound) -> _ByRound:
    done, open_ = files.rounds()
    asked = max((each["fit"]["asked"] + each["evaluate"]["asked"] for each in done), default=1)
    count = max(_LEAST_ROUNDS, min(LAST_ROUNDS, _MOST_PARTS // max(1, asked)))
    numbers = [each["round"] for each in done[-count:]]
    # A late reply may have changed the last rounds.
    kept = {number: known[number] for number in numbers[:-2] if number in known}
    away = {} if client is None else away_of(files.events.presence(client))
    for number in [*numbers, *(each["round"] for each in open_)]:
        if number not in kept:
            kept[number] = list(_tasks_of(files, number, client, away))
    return kept


def _tasks_of(files: RunFiles, number: int, client: str | None, away: Away) -> Iterator[Task]:
    for row in files.rows(number):
        for phase in row.phases:
            where = {"round": number, "phase": phase.phase.value}
            if client is None:
                late = [each.part for each in phase.late if each.part is not None]
                yield from ({**where, **brief_json(p)} for p in (*phase_parts(phase), *late))
                continue
            took = [part.seconds for part in phase_parts(phase) if part.seconds is not None]
            middle = {"median_seconds": median(took) if took else None}
            for told in parts_json(phase, away, client):
                yield {**where, **told, **middle}
