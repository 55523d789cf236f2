"""A run's record on disk: requests, outcomes and costs; for people and tools.

``<folder>/<job>/history.json`` is replaced atomically after rounds, so that a reader sees the run
up to some round, never half of one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from flmq.common.errors import StoredDataError
from flmq.common.failure_text import named_error
from flmq.common.files import replacing
from flmq.common.jsonvalues import from_json, to_json
from flmq.common.times import TaskTimes, WorkerTimes
from flmq.common.typing import Scalar
from flmq.observe.events import BufferedUpdate, Note, RoundCounts

__all__ = [
    "FORMAT",
    "KILLED",
    "OutcomeRecord",
    "RoundRecord",
    "RunRecord",
    "killed_note",
    "killed_rounds",
    "load_record",
    "record_in",
    "record_lines",
    "round_of",
    "round_text",
    "save_record",
    "write_record",
]

FORMAT = 1
"""Version of the file; increased when an older reader would misread it."""

KILLED = "killed "
_Kind = TypeVar("_Kind")


@dataclass(frozen=True, slots=True)
class OutcomeRecord:
    """Outcome of a client's task, and the contents of its reply."""

    phase: str
    client_id: str
    word: str
    reason: str
    seconds: float | None
    """Seconds from the opening of the phase to the reply."""
    detail: str
    num_examples: int | None = None
    bytes: int = 0
    """Bytes received for the reply."""
    metrics: Mapping[str, Scalar] = field(default_factory=dict)
    """The client's own metrics."""
    times: TaskTimes | None = None
    """When it was published, taken, trained, sent and counted; None: nothing is known of that."""
    metrics_left_out: int = 0
    """Number of the client's metrics that are not kept, as there are too many."""
    count: int = 1
    """Number of such replies; more than 1 only of duplicates, of which the last is told."""


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
    """Number of replies discarded, as they broke off on their way to the server."""
    stray_chunks: int = 0
    """Number of chunks that belong to no awaited reply."""
    fit_metrics: Mapping[str, Scalar] = field(default_factory=dict)
    evaluate_loss: float | None = None
    evaluate_metrics: Mapping[str, Scalar] = field(default_factory=dict)
    changed: bool = True
    buffer: tuple[Mapping[str, Scalar], ...] = ()
    """In a run without rounds: what the step was made of, each a `BufferedUpdate` as a dict."""
    outcomes_left_out: int = 0
    """Number of outcomes omitted from a long run's record; `flmq runs show` counts them."""
    digest: str = ""
    """Digest of the model after the round; empty if the run has no journal."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run so far."""

    job: str
    strategy: str
    broker: str
    num_rounds: int
    started: str
    """ISO 8601, UTC."""
    about: Mapping[str, Scalar] = field(default_factory=dict)
    """Information given by the caller of the recorder: partition, model, seed."""
    ended: str | None = None
    error: str | None = None
    seconds: float | None = None
    final_loss: float | None = None
    final_metrics: Mapping[str, Scalar] = field(default_factory=dict)
    rounds: tuple[RoundRecord, ...] = ()
    notes: tuple[tuple[int | None, str], ...] = ()
    """Remarks on connections, clients and the run, each with its round if it has one."""
    incomplete_uploads: int = 0
    """For the whole run as its last server saw it, like ``stray_chunks``."""
    stray_chunks: int = 0
    stopped_early: str = ""
    """Why the run finished before its last round, if it did."""


_OUTCOME = tuple(each.name for each in fields(OutcomeRecord))
_TIMES = tuple(each.name for each in fields(TaskTimes))
_WORKER = tuple(each.name for each in fields(WorkerTimes))


def round_text(closed: RoundRecord) -> str:
    """Return a round as JSON, on one line."""
    plain = to_json(asdict(replace(closed, outcomes=())))
    plain["outcomes"] = [_outcome_in_json(each) for each in closed.outcomes]
    return json.dumps(plain, allow_nan=False, ensure_ascii=False)


def _outcome_in_json(outcome: OutcomeRecord) -> dict[str, Any]:
    """Return what `asdict` would, ten times as fast: a long run has a million of them."""
    plain = {name: getattr(outcome, name) for name in _OUTCOME}
    plain["seconds"] = to_json(outcome.seconds)
    plain["metrics"] = to_json(dict(outcome.metrics))
    times = outcome.times
    if times is not None:
        plain["times"] = {name: getattr(times, name) for name in _TIMES}
        if times.worker is not None:
            worker = {name: getattr(times.worker, name) for name in _WORKER}
            plain["times"]["worker"] = worker
    return plain


def round_of(text: str) -> RoundRecord:
    """Parse the round that `round_text` wrote."""
    return _round(from_json(json.loads(text)))


def save_record(record: RunRecord, path: Path) -> None:
    """Replace the file at ``path`` atomically."""
    write_record(record, map(round_text, record.rounds), path)


def write_record(record: RunRecord, rounds: Iterable[str], path: Path) -> None:
    """Save as `save_record` does, with rounds already serialized, as a long run has many."""
    with replacing(path, tidy=True) as file:
        file.writelines(record_lines(record, rounds))


def record_lines(record: RunRecord, rounds: Iterable[str]) -> Iterator[bytes]:
    """Yield the file's bytes, of ``record`` without its rounds and of these rounds' texts."""
    head = {"format": FORMAT, **to_json(asdict(replace(record, rounds=())))}
    del head["rounds"]
    text = json.dumps(head, indent=1, allow_nan=False, ensure_ascii=False).removesuffix("\n}")
    yield _bytes(text + ',\n "rounds": [')
    for place, each in enumerate(rounds):
        yield _bytes(f"{',' if place else ''}\n  {each}")
    yield b"\n ]\n}\n"


def _bytes(text: str) -> bytes:
    # UTF-8 cannot encode half a surrogate pair, but a JSON escape can.
    return text.encode(errors="backslashreplace")


def load_record(path: Path) -> RunRecord:
    """Load the record at ``path``: a ``history.json``, or the folder that holds one.

    Raises:
        StoredDataError: there is none, it is damaged, or a newer flmq wrote it.
    """
    path = path / "history.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoredDataError(f"no run's record can be read at {path}: {error.strerror}") from error
    except (RecursionError, ValueError) as error:
        raise StoredDataError(
            f"the run's record {path} is damaged ({error}): delete it, or restore a copy"
        ) from error
    return record_in(document, path)


def killed_note(client_ids: Iterable[str], server_round: int) -> Note:
    """Return the note that these clients were killed on purpose; pictures mark them."""
    return Note(KILLED + ", ".join(sorted(client_ids)), server_round)


def killed_rounds(record: RunRecord) -> dict[int, tuple[str, ...]]:
    """Return the clients killed on purpose, by round, from the notes of ``killed_note``."""
    killed: dict[int, tuple[str, ...]] = {}
    for server_round, text in record.notes:
        if server_round is not None and text.startswith(KILLED):
            names = text.removeprefix(KILLED).split(", ")
            killed[server_round] = (*killed.get(server_round, ()), *names)
    return killed


def record_in(document: Any, path: Path) -> RunRecord:
    """Return the record that the parsed JSON ``document`` of the file ``path`` is.

    Raises:
        StoredDataError: it is none, or a newer flmq wrote it.
    """
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
            f"the run's record {path} is damaged ({named_error(error)}): delete it, "
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
        outcomes=tuple(
            _made(OutcomeRecord, each, times=_times(each.get("times"))) for each in data["outcomes"]
        ),
        buffer=tuple(asdict(_made(BufferedUpdate, each)) for each in data.get("buffer", ())),
    )


def _times(data: dict[str, Any] | None) -> TaskTimes | None:
    if data is None:
        return None
    worker = data.get("worker")
    return _made(TaskTimes, data, worker=None if worker is None else _made(WorkerTimes, worker))


def _made(kind: type[_Kind], data: dict[str, Any], **built: Any) -> _Kind:
    """Create a ``kind`` from ``data``, checking fields and types; unknown fields are ignored.

    Plain fields with a default may be missing: earlier versions did not write all of them.
    """
    values: dict[str, Any] = {}
    plain = {each.name for each in fields(kind) if _has_default(each)}  # type: ignore[arg-type]
    for name, hint in get_type_hints(kind).items():
        if name not in built and name not in data and name in plain:
            continue
        value = built[name] if name in built else data[name]
        if name not in built and not isinstance(value, _plain_types(hint)):
            raise ValueError(f"{name} is {value!r}")
        values[name] = value
    return kind(**values)


def _has_default(each: Field[Any]) -> bool:
    return each.default is not MISSING or each.default_factory is not MISSING


def _plain_types(hint: Any) -> tuple[type, ...]:
    """Return the types that a value of ``hint`` may have in JSON, which has one type of number."""
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    plain = tuple(get_origin(option) or option for option in options)
    return (*plain, int) if float in plain else plain
