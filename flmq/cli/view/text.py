"""Show a run as plain lines of text: for logs, pipes and simple terminals.

One line per round and one for each noteworthy event, each beginning with a word to grep for:
``run``, ``round``, ``client``, ``broker``, ``note``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import IO, Self

from flmq.common.cleaning import one_line
from flmq.common.typing import Scalar
from flmq.observe.events import (
    BufferChanged,
    ClientsAwaited,
    RoundClosed,
    RoundCounts,
    RunEnded,
    RunEvent,
    RunStarted,
)
from flmq.observe.measures import figure, final_measures, measures_of
from flmq.observe.remarks import Remarker, waiting_for

__all__ = ["TextView"]

_MOST_MEASURES = 24
"""Maximum number of measurements on a line; the record has all."""


class TextView:
    """An observer that writes a line for each round and each noteworthy event."""

    def __init__(self, stream: IO[str]) -> None:
        """Write to ``stream``, flushing each line."""
        self._stream = stream
        self._num_rounds = 0
        self._closed_rounds = 0
        self._busy: int | None = None
        """Clients at work in a run without rounds."""
        self._last: RoundClosed | None = None
        self._remark_on = Remarker()

    def __call__(self, event: RunEvent) -> None:
        """Write what ``event`` is worth, if anything."""
        match event:
            case RunStarted():
                self._num_rounds = event.num_rounds
                self._last = event.earlier[-1] if event.earlier else None
                self._write(
                    f"run started job={event.job} strategy={event.strategy} "
                    f"rounds={event.num_rounds} broker={one_line(event.broker)}"
                )
            case BufferChanged():
                self._busy = len(event.busy)
            case RoundClosed():
                self._closed_rounds += 1
                self._last = event
                self._write(_round_line(event, self._busy))
            case ClientsAwaited():
                self._write(f"note {waiting_for(event)}")
            case RunEnded():
                done = f"{max(self._closed_rounds, event.rounds)}/{self._num_rounds}"
                self._write(_end_line(event, done, self._last))
            case _:
                remark = self._remark_on(event)
                if remark is not None:
                    self._write(f"{remark.kind} {remark.text}")

    def close(self) -> None:
        """Do nothing: the stream's owner closes it."""

    def __enter__(self) -> Self:
        """Return the view itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Call ``close``."""
        self.close()

    def _write(self, line: str) -> None:
        # A client's text may contain characters that the log's encoding lacks.
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        self._stream.flush()


def _round_line(event: RoundClosed, busy: int | None) -> str:
    parts = [
        f"round {event.server_round}/{event.num_rounds}",
        _counts(event.fit),
        _counts(event.evaluate, "evaluate_") if event.evaluate.asked else "",
        *_measures({"loss": event.loss, **measures_of(event)}),
        f"seconds={event.seconds:.1f}",
        f"mb_down={event.bytes_down / 1e6:.2f}",
        f"mb_up={event.bytes_up / 1e6:.2f}",
        *_buffer(event, busy),
        *_lost(event),
        f"note={one_line(event.note)}" if event.note else "",
    ]
    return " ".join(part for part in parts if part)


def _buffer(event: RoundClosed, busy: int | None) -> list[str]:
    """Return who is busy in a run without rounds, and whose updates of which staleness came."""
    if not event.buffer:
        return []
    shown = [
        f"{one_line(each.client_id)}:{each.staleness}{'' if each.weight else ':dropped'}"
        for each in event.buffer[:_MOST_MEASURES]
    ]
    more = len(event.buffer) - len(shown)
    rest = [f"+{more}"] if more else []
    return [*([] if busy is None else [f"busy={busy}"]), f"buffer={','.join(shown + rest)}"]


def _lost(event: RoundClosed | RunEnded) -> list[str]:
    """Return texts on replies that were lost on the way, if any."""
    counts = {
        "incomplete_uploads": event.incomplete_uploads,
        "stray_chunks": event.stray_chunks,
    }
    return [f"{name}={count}" for name, count in counts.items() if count]


def _counts(counts: RoundCounts, prefix: str = "") -> str:
    """Return the four counts that every line has, and the others that are not zero."""
    always = {
        "asked": counts.asked,
        "answered": counts.accepted,
        "failed": counts.failed,
        "silent": counts.silent,
    }
    others = {
        "rejected": counts.rejected,
        "unroutable": counts.unroutable,
        "late": counts.late,
        "duplicate": counts.duplicate,
        "carried": counts.carried,
    }
    shown = always | {word: count for word, count in others.items() if count}
    return " ".join(f"{prefix}{word}={count}" for word, count in shown.items())


def _measures(measures: Mapping[str, Scalar | None]) -> list[str]:
    """Return ``name=value`` for each measurement, up to a limit."""
    shown = [f"{name}={figure(value)}" for name, value in list(measures.items())[:_MOST_MEASURES]]
    more = len(measures) - len(shown)
    return [*shown, f"more_metrics={more}"] if more else shown


def _end_line(event: RunEnded, rounds: str, last: RoundClosed | None) -> str:
    measures = {
        "loss": event.final_loss,
        **({} if last is None else measures_of(last)),
        **final_measures(event),
    }
    line = " ".join(
        [
            f"run {'stopped' if event.stopped else 'ended'}",
            f"job={event.job} rounds={rounds} seconds={event.seconds:.1f}",
            *_measures(measures),
            *_lost(event),
            *([f"stopped_early={one_line(event.stopped_early)}"] if event.stopped_early else []),
            *([f"unchanged={one_line(event.unchanged)}"] if event.unchanged else []),
        ]
    )
    return line if event.error is None or event.stopped else f"{line} error={one_line(event.error)}"
