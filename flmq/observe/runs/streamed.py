"""Read a ``history.json`` round by round: one of a long run need not fit into memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from flmq.common.errors import StoredDataError
from flmq.common.failure_text import named_error
from flmq.observe.record import RoundRecord, RunRecord, load_record, record_in, round_of

__all__ = ["stream_record"]

_ROUNDS = ' "rounds": ['
"""The line after which each round is a line of its own; JSON escapes line breaks in names."""


def stream_record(path: Path) -> tuple[RunRecord, Iterator[RoundRecord]]:
    """Return the record at ``path`` without its rounds, and its rounds as they are read.

    ``path``: a ``history.json``, or the folder that holds one. A file that another program has
    formatted anew is read whole.

    Raises:
        StoredDataError: there is none, it is damaged, or a newer flmq wrote it. The iterator
            raises it as well, where it comes to the damage.
    """
    path = path / "history.json" if path.is_dir() else path
    head: list[str] = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.rstrip("\n") == _ROUNDS:
                    break
                head.append(line)
            else:
                record = load_record(path)
                return record, iter(record.rounds)
        document = json.loads("".join(head) + _ROUNDS + "]}")
    except OSError as error:
        raise StoredDataError(f"no run's record can be read at {path}: {error.strerror}") from error
    except (RecursionError, ValueError) as error:
        raise _damaged(path, error) from error
    return record_in(document, path), _rounds(path)


def _rounds(path: Path) -> Iterator[RoundRecord]:
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.rstrip("\n") == _ROUNDS:
                    break
            for line in file:
                text = line.strip().removesuffix(",")
                if text == "]":
                    return
                if text:
                    yield round_of(text)
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    raise _damaged(path, ValueError("it breaks off"))


def _damaged(path: Path, error: Exception) -> StoredDataError:
    return StoredDataError(
        f"the run's record {path} is damaged ({named_error(error)}): delete it, or restore a copy"
    )
