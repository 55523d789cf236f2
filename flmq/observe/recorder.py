"""Write a run's record while it goes on; `flmq.observe.record` defines its content."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from flmq.common.errors import StoredDataError
from flmq.common.logger import logger
from flmq.common.typing import Scalar
from flmq.journal import open_to_read
from flmq.observe.events import (
    ClientOutcome,
    ClientPresence,
    EventsDropped,
    PhaseClosed,
    PhaseOpened,
    RoundClosed,
    RunEnded,
    RunEvent,
    RunStarted,
)
from flmq.observe.record import (
    OutcomeRecord,
    RoundRecord,
    RunRecord,
    round_of,
    round_text,
    write_record,
)
from flmq.observe.remarks import Remarker
from flmq.observe.runs.journalled import completed, journalled_rounds
from flmq.observe.runs.streamed import stream_record
from flmq.observe.stragglers import Stragglers, with_straggler

__all__ = ["RunRecorder"]

_REST = 9.0
"""Seconds of pause for each second of writing, so that the record takes a tenth of the time."""
_MOST_CHARACTERS = 16 * 1024**2
"""Characters of rounds with outcomes, some 100,000 replies; older rounds only keep counts."""
_MOST_NOTES = 10_000
_MOST_METRICS = 64
"""Maximum number of metrics kept of a reply: a client decides how many it sends."""
_LONGEST = 4096
"""Maximum number of characters of a client's reason, traceback or metric."""


class RunRecorder:
    """An observer that keeps ``<folder>/<job>/history.json`` up to date.

    Past rounds are kept as serialized text, which takes the least memory. What is not kept, as the
    run is long or an earlier server saw it, is added by `complete` from the run's journal.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Scalar] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        monotonic: Callable[[], float] = time.monotonic,
        rest: float = _REST,
        most: int = _MOST_CHARACTERS,
    ) -> None:
        """Write below ``folder``, with ``about`` in the record; ``clock`` returns aware datetimes.

        After each write of a round, pause for ``rest`` times as long as it took. If the rounds take
        more than ``most`` characters in all, the oldest lose their outcomes.
        """
        self._monotonic = monotonic
        self._rest = rest
        self._most = most
        self._folder = folder
        self._about = dict(about or {})
        self._clock = clock
        self._record: RunRecord | None = None
        self._rounds: dict[int, str] = {}
        self._characters = 0
        self._whole_from = 0
        """Rounds below this one have no outcomes."""
        self._notes: deque[tuple[int | None, str]] = deque()
        self._notes_left_out = 0
        self._outcomes: list[tuple[int, OutcomeRecord]] = []
        self._closed: dict[tuple[int, str], str] = {}
        self._round = 0
        self._next_write = 0.0
        self._journal = ""
        """Folder of the run's journal; empty if it has none."""
        self._incomplete = False
        """Whether the journal knows more of past rounds than is kept here."""
        self._remark_on = Remarker()
        self._stragglers = Stragglers()

    @property
    def path(self) -> Path | None:
        """The file; None before the run has started."""
        return None if self._record is None else self._folder / self._record.job / "history.json"

    def __call__(self, event: RunEvent) -> None:
        """Process ``event``; write the file at the start, after rounds and at the end.

        Raises:
            OSError: the file cannot be written.
        """
        match event:
            case RunStarted():
                self._start(event)
            case PhaseOpened():
                self._round = event.server_round
            case PhaseClosed():
                self._closed[event.server_round, event.phase.value] = event.reason
            case ClientOutcome():
                self._keep_outcome(event)
            case RoundClosed():
                self._close_round(event)
            case RunEnded():
                self._end(event)
            case _:
                self._incomplete |= isinstance(event, EventsDropped)
                self._keep_note(event)

    def _start(self, event: RunStarted) -> None:
        self._record = RunRecord(
            event.job,
            event.strategy,
            event.broker,
            event.num_rounds,
            self._clock().isoformat(timespec="seconds"),
            self._about,
        )
        self._journal = event.folder
        if event.earlier:
            self._go_on(event)
        self._write()

    def _go_on(self, event: RunStarted) -> None:
        """Begin with what an earlier server of the same job recorded, as far as it can be read."""
        assert self._record is not None
        assert self.path is not None
        self._incomplete = True
        for closed in event.earlier:
            self._keep(self._round_record(closed))
        known = {closed.server_round for closed in event.earlier}
        try:
            earlier, rounds = stream_record(self.path)
            self._record = replace(self._record, started=earlier.started)
            self._notes.extend(earlier.notes)
            for each in rounds:
                if each.server_round in known:
                    self._keep(each)
        except StoredDataError:
            return  # the run resumes from its journal; the record is only for people

    def _keep_outcome(self, event: ClientOutcome) -> None:
        outcome = OutcomeRecord(
            event.phase.value,
            event.client_id,
            event.outcome.value,
            event.reason[:_LONGEST],
            event.seconds,
            event.detail[-_LONGEST:],
            event.num_examples,
            event.bytes_up,
            _bounded(event.metrics),
            event.times,
        )
        # A reply may be late by more than a round; it belongs to the round that asked for it.
        text = self._rounds.get(event.server_round)
        if text is not None:
            self._add_to_closed(round_of(text), event, outcome)
            return
        if event.is_straggler:
            self._stragglers.hear(event)
        self._outcomes.append((event.server_round, outcome))

    def _add_to_closed(
        self, closed: RoundRecord, event: ClientOutcome, outcome: OutcomeRecord
    ) -> None:
        if event.is_straggler:
            closed = with_straggler(closed, event)
        if closed.server_round < self._whole_from:
            closed = replace(closed, outcomes_left_out=closed.outcomes_left_out + 1)
        else:
            closed = replace(closed, outcomes=(*closed.outcomes, outcome))
        self._keep(closed)

    def _keep_note(self, event: RunEvent) -> None:
        # It is no news that clients come before the first round.
        if isinstance(event, ClientPresence) and event.status == "online" and not self._round:
            return
        remark = self._remark_on(event)
        if remark is not None:
            self._notes.append((remark.server_round or self._round or None, remark.text))
        if len(self._notes) > _MOST_NOTES:
            self._notes_left_out += 1
            self._notes.popleft()

    def _close_round(self, event: RoundClosed) -> None:
        self._keep(self._round_record(self._stragglers.counted(event)))
        # The file is rewritten whole: in a long run of quick rounds, not after each of them.
        now = self._monotonic()
        if now >= self._next_write:
            self._write()
            self._next_write = now + self._rest * (self._monotonic() - now)

    def _round_record(self, event: RoundClosed) -> RoundRecord:
        """Return the record of a round, with what was collected for it."""
        number = event.server_round
        closed = {phase: why for (at, phase), why in self._closed.items() if at == number}
        outcomes = tuple(outcome for at, outcome in self._outcomes if at == number)
        # Requests before the first round belong to no round.
        self._outcomes = [pair for pair in self._outcomes if pair[0] > number]
        self._closed = {key: why for key, why in self._closed.items() if key[0] > number}
        return RoundRecord(
            number,
            event.fit,
            event.evaluate,
            event.loss,
            dict(event.metrics),
            event.seconds,
            event.bytes_down,
            event.bytes_up,
            event.note,
            closed,
            outcomes,
            event.incomplete_uploads,
            event.stray_chunks,
            dict(event.fit_metrics),
            event.evaluate_loss,
            dict(event.evaluate_metrics),
            event.changed,
            tuple(map(asdict, event.buffer)),
            digest=event.digest,
        )

    def _keep(self, closed: RoundRecord) -> None:
        """Keep a round, replacing an earlier version; drop outcomes if it becomes too large."""
        self._set(closed)
        while self._characters > self._most and self._whole_from <= max(self._rounds):
            text = self._rounds.get(self._whole_from)
            self._whole_from += 1
            if text is not None:
                oldest = round_of(text)
                left_out = oldest.outcomes_left_out + len(oldest.outcomes)
                self._set(replace(oldest, outcomes=(), outcomes_left_out=left_out))
                self._incomplete = True

    def _set(self, closed: RoundRecord) -> None:
        text = round_text(closed)
        self._characters += len(text) - len(self._rounds.get(closed.server_round, ""))
        self._rounds[closed.server_round] = text

    def _end(self, event: RunEnded) -> None:
        if self._record is None:
            return
        self._record = replace(
            self._record,
            ended=self._clock().isoformat(timespec="seconds"),
            error=event.error,
            seconds=event.seconds,
            final_loss=event.final_loss,
            final_metrics=dict(event.final_metrics),
            incomplete_uploads=event.incomplete_uploads,
            stray_chunks=event.stray_chunks,
            stopped_early=event.stopped_early,
        )
        self._write()

    def complete(self) -> None:
        """Write the file with every client's part in every round, as the journal has them.

        For after the run: of a long one it takes longer than an observer should. Without a journal,
        or if nothing is missing, it does nothing.
        """
        if not self._incomplete or not self._journal:
            return
        try:
            journal = open_to_read(Path(self._journal))
        except StoredDataError as error:
            logger.warning("history.json lacks what its journal has: %s", error)
            return
        try:
            self._write(self._completed(journalled_rounds(journal)))
        except StoredDataError as error:
            logger.warning("history.json lacks what its journal has: %s", error)
        finally:
            journal.close()

    def _completed(self, journalled: Iterable[RoundRecord]) -> Iterator[str]:
        for each in journalled:
            text = self._rounds.get(each.server_round)
            yield round_text(completed(each, None if text is None else round_of(text)))

    def _write(self, rounds: Iterable[str] | None = None) -> None:
        """Write the file, with ``rounds`` in place of those that are kept."""
        if self._record is None or self.path is None:
            return
        notes = tuple(self._notes)
        if self._notes_left_out:
            notes = ((None, f"{self._notes_left_out} earlier notes are left out"), *notes)
        self._record = replace(self._record, notes=notes)
        write_record(self._record, self._rounds.values() if rounds is None else rounds, self.path)


def _bounded(metrics: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return the first of a client's metrics, each cut to a maximum length."""
    first = list(metrics.items())[:_MOST_METRICS]
    return {
        name[:_LONGEST]: value[:_LONGEST] if isinstance(value, str | bytes) else value
        for name, value in first
    }
