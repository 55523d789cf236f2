"""A run's record on disk: what was asked, what became of it, what it cost; for people and tools.

``<folder>/<job>/history.json`` is replaced whole after every round, so that whoever reads it sees
the run up to some round, never half of one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from flmq.cli.jsonvalues import from_json, to_json
from flmq.cli.plain import Remarker
from flmq.cli.replacing import replacing
from flmq.cli.stragglers import Stragglers, is_straggler, with_straggler
from flmq.common.errors import StoredDataError
from flmq.common.typing import Scalar
from flmq.server.events import (
    ClientOutcome,
    ClientPresence,
    ConnectionChanged,
    Note,
    PhaseClosed,
    PhaseOpened,
    RoundClosed,
    RoundCounts,
    RunEnded,
    RunEvent,
    RunStarted,
    Word,
)

__all__ = [
    "FORMAT",
    "OutcomeRecord",
    "RoundRecord",
    "RunRecord",
    "RunRecorder",
    "killed_note",
    "killed_rounds",
    "load_record",
    "save_record",
]

FORMAT = 1
"""Version of the file; raised when a reader of the old one would misread the new one."""
_REST = 9.0
"""For each second of writing, seconds without: a record takes a tenth of the time at most."""

_KILLED = "killed "
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True)
class OutcomeRecord:
    """A client's task that was not plainly accepted."""

    phase: str
    client_id: str
    word: str
    reason: str
    seconds: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round that is over."""

    server_round: int
    fit: RoundCounts
    evaluate: RoundCounts
    loss: float | None
    metrics: Mapping[str, Scalar]
    seconds: float
    bytes_down: int
    bytes_up: int
    note: str
    closed: Mapping[str, str]
    """Why each phase closed."""
    outcomes: tuple[OutcomeRecord, ...]
    incomplete_uploads: int = 0
    """Replies that broke off on their way to the server and were discarded."""
    stray_chunks: int = 0
    """Chunks of replies that nobody waited for."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run, as far as it has come."""

    job: str
    strategy: str
    broker: str
    num_rounds: int
    started: str
    """ISO 8601, UTC."""
    about: Mapping[str, Scalar] = field(default_factory=dict)
    """What the caller of the recorder wants kept: partition, model, seed."""
    ended: str | None = None
    error: str | None = None
    seconds: float | None = None
    final_loss: float | None = None
    final_metrics: Mapping[str, Scalar] = field(default_factory=dict)
    rounds: tuple[RoundRecord, ...] = ()
    notes: tuple[tuple[int | None, str], ...] = ()
    """Remarks on connections, clients and the run, each with its round where it has one."""
    incomplete_uploads: int = 0
    """Of the whole run as its last server saw it, as are ``stray_chunks``."""
    stray_chunks: int = 0


class RunRecorder:
    """An observer that keeps ``<folder>/<job>/history.json`` up to date."""

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Scalar] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        rest: float = _REST,
    ) -> None:
        """Write below ``folder``, keeping ``about`` in the record; ``clock`` gives aware times.

        After each write of a round none follows for ``rest`` times as long as it took.
        """
        self._rest = rest
        self._folder = folder
        self._about = dict(about or {})
        self._clock = clock
        self._record: RunRecord | None = None
        self._rounds: list[RoundRecord] = []
        self._notes: list[tuple[int | None, str]] = []
        self._outcomes: list[tuple[int, OutcomeRecord]] = []
        self._closed: dict[tuple[int, str], str] = {}
        self._round = 0
        self._next_write = 0.0
        self._remark_on = Remarker()
        self._stragglers = Stragglers()

    @property
    def path(self) -> Path | None:
        """The file; None before the run has started."""
        return None if self._record is None else self._folder / self._record.job / "history.json"

    def __call__(self, event: RunEvent) -> None:
        """Take ``event`` in; write the file at the start, after each round and at the end.

        Raises ``OSError`` where the file cannot be written.
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
        for closed in event.earlier:
            self._add_round(closed)
        if event.earlier:
            self._take_over()
        self._write()

    def _take_over(self) -> None:
        """Keep what the record of an earlier server of the same job says of its rounds."""
        assert self._record is not None
        assert self.path is not None
        try:
            earlier = load_record(self.path)
        except StoredDataError:
            return  # the journal is what the run goes on from; this is for people to read
        self._record = replace(self._record, started=earlier.started)
        known = {each.server_round: each for each in earlier.rounds}
        self._rounds = [known.get(each.server_round, each) for each in self._rounds]
        self._notes = list(earlier.notes)

    def _keep_outcome(self, event: ClientOutcome) -> None:
        if event.word is Word.ACCEPTED:
            return
        outcome = OutcomeRecord(
            event.phase.value,
            event.client_id,
            event.word.value,
            event.reason,
            event.seconds,
            event.detail,
        )
        # A reply may come late by more than a round; it belongs to the round that asked.
        for position, closed in enumerate(self._rounds):
            if closed.server_round == event.server_round:
                kept = replace(closed, outcomes=(*closed.outcomes, outcome))
                if is_straggler(event):
                    kept = with_straggler(kept, event)
                self._rounds[position] = kept
                return
        if is_straggler(event):
            self._stragglers.hear(event)
        self._outcomes.append((event.server_round, outcome))

    def _keep_note(self, event: ClientPresence | ConnectionChanged | Note) -> None:
        # That clients come before the first round is no news.
        if isinstance(event, ClientPresence) and event.status == "online" and not self._round:
            return
        remark = self._remark_on(event)
        if remark is not None:
            self._notes.append((remark.server_round or self._round or None, remark.text))

    def _close_round(self, event: RoundClosed) -> None:
        self._add_round(self._stragglers.counted(event))
        # The file is written whole: in a long run of quick rounds not after each of them.
        now = time.monotonic()
        if now >= self._next_write:
            self._write()
            self._next_write = now + self._rest * (time.monotonic() - now)

    def _add_round(self, event: RoundClosed) -> None:
        number = event.server_round
        self._rounds.append(
            RoundRecord(
                number,
                event.fit,
                event.evaluate,
                event.loss,
                dict(event.metrics),
                event.seconds,
                event.bytes_down,
                event.bytes_up,
                event.note,
                {phase: why for (at, phase), why in self._closed.items() if at == number},
                tuple(outcome for at, outcome in self._outcomes if at == number),
                event.incomplete_uploads,
                event.stray_chunks,
            )
        )
        self._outcomes = [pair for pair in self._outcomes if pair[0] != number]
        self._closed = {key: why for key, why in self._closed.items() if key[0] != number}

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
        )
        self._write()

    def _write(self) -> None:
        if self._record is None or self.path is None:
            return
        record = replace(self._record, rounds=tuple(self._rounds), notes=tuple(self._notes))
        self._record = record
        save_record(record, self.path)


def save_record(record: RunRecord, path: Path) -> None:
    """Replace the file at ``path``; whoever reads it sees the old one or the new one whole."""
    document = {"format": FORMAT, **to_json(asdict(record))}
    encoder = json.JSONEncoder(indent=1, allow_nan=False, ensure_ascii=False)
    with replacing(path) as file:
        # In pieces: a long run's record is large.
        for piece in encoder.iterencode(document):
            file.write(piece.encode())
        file.write(b"\n")


def load_record(path: Path) -> RunRecord:
    """The record at ``path``: a ``history.json``, or the folder that holds one.

    Raises ``StoredDataError`` where there is none, it is damaged, or a newer flmq wrote it.
    """
    path = path / "history.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoredDataError(f"no run's record can be read at {path}: {error.strerror}") from error
    except ValueError as error:
        raise StoredDataError(
            f"the run's record {path} is damaged ({error}): delete it, or restore a copy"
        ) from error
    return _from_document(document, path)


def killed_note(client_ids: Iterable[str], server_round: int) -> Note:
    """The note that says that these clients were killed on purpose; pictures mark them."""
    return Note(_KILLED + ", ".join(sorted(client_ids)), server_round)


def killed_rounds(record: RunRecord) -> dict[int, tuple[str, ...]]:
    """Clients that were killed on purpose, by round, from the notes that ``killed_note`` made."""
    return {
        server_round: tuple(text.removeprefix(_KILLED).split(", "))
        for server_round, text in record.notes
        if server_round is not None and text.startswith(_KILLED)
    }


def _from_document(document: Any, path: Path) -> RunRecord:
    version = document.get("format") if isinstance(document, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise StoredDataError(
            f"the run's record {path} has format {version}, this flmq reads up to {FORMAT}: "
            "read it with the flmq that wrote it, or a newer one"
        )
    try:
        if version != FORMAT:
            raise ValueError(f"its format is {version!r}")
        return _run(from_json(document))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoredDataError(
            f"the run's record {path} is damaged ({type(error).__name__}: {error}): delete it, "
            "or restore a copy"
        ) from error


def _run(data: dict[str, Any]) -> RunRecord:
    rounds = tuple(_round(each) for each in data["rounds"])
    notes = tuple((server_round, str(text)) for server_round, text in data["notes"])
    return _made(RunRecord, data, rounds=rounds, notes=notes)


def _round(data: dict[str, Any]) -> RoundRecord:
    return _made(
        RoundRecord,
        data,
        fit=_made(RoundCounts, data["fit"]),
        evaluate=_made(RoundCounts, data["evaluate"]),
        outcomes=tuple(_made(OutcomeRecord, each) for each in data["outcomes"]),
    )


def _made(kind: type[_Kind], data: dict[str, Any], **built: Any) -> _Kind:
    """A ``kind`` from ``data``: every field must be there and of its type, others are ignored.

    Plain fields with a default may be missing: earlier versions did not write all of them.
    """
    values: dict[str, Any] = {}
    plain = {each.name for each in fields(kind) if each.default is not MISSING}  # type: ignore[arg-type]
    for name, hint in get_type_hints(kind).items():
        if name not in built and name not in data and name in plain:
            continue
        value = built[name] if name in built else data[name]
        if name not in built and not isinstance(value, _plain_types(hint)):
            raise ValueError(f"{name} is {value!r}")
        values[name] = value
    return kind(**values)


def _plain_types(hint: Any) -> tuple[type, ...]:
    """The types that a value of ``hint`` may have after JSON, which has one kind of number."""
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    plain = tuple(get_origin(option) or option for option in options)
    return (*plain, int) if float in plain else plain
