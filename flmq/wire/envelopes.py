"""The messages between server and clients, as data (``schemas/flmq/v1/envelopes.proto``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from flmq.common.failure_text import named_text
from flmq.common.phase import Phase
from flmq.common.times import WorkerTimes
from flmq.common.typing import Scalar
from flmq.wire.blobs import BlobRef

__all__ = [
    "MAX_COMPANIONS",
    "MAX_FAILURE_TEXT",
    "Begun",
    "Companion",
    "Failure",
    "FailureKind",
    "Ins",
    "JobEnded",
    "ModelRequest",
    "Presence",
    "PresenceKind",
    "Receipt",
    "ReceiptOutcome",
    "Reply",
    "Res",
    "RollCall",
    "Sealed",
    "Task",
]

MAX_FAILURE_TEXT = 4096
"""UTF-8 bytes to which each text of a `Failure` is cut when it is sent."""

MAX_COMPANIONS = 1000
"""Further clients of a process in one `Presence`."""

Ins = object
"""The request to a client: of the ``ins`` type of a kind (`flmq.wire.kinds`), such as `FitIns`."""
Res = object
"""A client's answer: of the ``res`` type of a kind, or a `Failure`."""


class FailureKind(Enum):
    """Why a client has no result."""

    EXCEPTION = "exception"
    """The client's code raised an exception."""
    EXPIRED = "expired"
    """The task's deadline had passed before the client started it."""
    REFUSED = "refused"
    """The client does not accept this task."""
    BAD_RETURN = "bad_return"
    """The client's code returned something of the wrong form."""
    SETTLED = "settled"
    """The client had a receipt for its reply, and dropped it."""


class ReceiptOutcome(Enum):
    """Outcome of a reply."""

    ACCEPTED = "accepted"
    LATE = "late"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"


class PresenceKind(Enum):
    """Kind of a presence message."""

    HELLO = "hello"
    HEARTBEAT = "heartbeat"
    BYE = "bye"


@dataclass(frozen=True, slots=True)
class Task:
    """Server to client: do this."""

    task_id: str
    job: str
    server_round: int
    phase: Phase
    client_id: str
    epoch: int
    """Fencing token: increases at every start of the job's server."""
    nonce: bytes
    """To be echoed in the reply: proof that its sender has read this task."""
    ins: Ins
    """The request, of the type that belongs to the phase."""
    deadline_unix_ms: int | None = None
    """Milliseconds since 1970 UTC; None for no deadline."""
    timeout_seconds: float | None = None
    """Seconds that the client has; None for no limit."""
    model: BlobRef | None = None
    """Reference to the parameters left out of ``ins``: in the stream of models, or on request."""
    reply_codec: str = ""
    """Codec for the reply's parameters, relative to ``model``; empty for none."""
    run: str = ""
    """Identifies a run of the job: epochs are compared within one run only."""
    again: int = 0
    """Epoch of the server that wants it done again though the client has a receipt for its reply;
    0 if it is to be done once."""
    via: str = ""
    """The site whose aggregator adds the reply up, the client's own; empty: it goes to the
    server."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A client has no result, and why."""

    kind: FailureKind
    exception_type: str = ""
    message: str = ""
    """Its first `MAX_FAILURE_TEXT` bytes are sent."""
    traceback_tail: str = ""
    """Its last `MAX_FAILURE_TEXT` bytes are sent."""

    @property
    def text(self) -> str:
        """Return ``exception_type: message``, or whichever of the two is not empty."""
        return named_text(self.exception_type, self.message)


@dataclass(frozen=True, slots=True)
class Reply:
    """Client to server: the result of a task."""

    task_id: str
    job: str
    server_round: int
    phase: Phase
    client_id: str
    epoch: int
    """The task's."""
    nonce: bytes
    """The task's."""
    seconds: float
    """Seconds that the call took on the client."""
    res: Res
    """The answer, of the type that belongs to the phase, or a failure."""
    blob: BlobRef | None = None
    """Reference to the parameters left out of ``res``: they follow in chunks."""
    base: str = ""
    """Digest of the task's ``model``, which it was to begin from; empty if that was in the task."""
    run: str = ""
    """The task's."""
    times: WorkerTimes | None = None
    """The task's course by the worker's clock; None: it is of an older worker."""

    def timed(self, times: WorkerTimes) -> Reply:
        """Return the reply with ``times``; `dataclasses.replace` would take thrice as long."""
        return Reply(
            self.task_id,
            self.job,
            self.server_round,
            self.phase,
            self.client_id,
            self.epoch,
            self.nonce,
            self.seconds,
            self.res,
            self.blob,
            self.base,
            self.run,
            times,
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """Server to client: the outcome of your reply."""

    task_id: str
    job: str
    server_round: int
    phase: Phase
    client_id: str
    outcome: ReceiptOutcome
    reason: str = ""
    late_by_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Presence:
    """Client to all servers: I am here, or I am leaving."""

    kind: PresenceKind
    client_id: str
    site: str
    instance: str
    """Unique to the client's process: tells a restart from a second process with the same id."""
    properties: Mapping[str, Scalar] = field(default_factory=dict)
    sent_unix_ms: int = 0
    """Milliseconds since 1970 UTC, by the client's clock."""
    heartbeat_seconds: float = 0.0
    """Maximum seconds until the next heartbeat; 0 if none will come."""
    flmq_version: str = ""
    refused: str = ""
    """Why ``properties`` is empty though the client sent some; else empty. Not sent."""
    others: tuple[Companion, ...] = ()
    """Further clients of the process, of whom the same is said; at most `MAX_COMPANIONS`."""
    dropped: tuple[int, str] = (0, "")
    """How many others were not valid when this was read, and what was wrong with the first. Not
    sent."""
    bare: bool = False
    """Whether its properties were left out, though it may have some. Not sent."""

    def each(self, greeting: str) -> Iterator[tuple[Presence, str]]:
        """Yield what is said of every client, with the id of the greeting that it answers.

        ``greeting`` is the first client's, of whom this itself is yielded.
        """
        yield self, greeting
        bare = self.kind is PresenceKind.HEARTBEAT
        for other in self.others:
            one = Presence(
                self.kind,
                other.client_id,
                self.site,
                self.instance,
                other.properties,
                self.sent_unix_ms,
                self.heartbeat_seconds,
                self.flmq_version,
                other.refused,
                bare=bare,
            )
            yield one, other.greeting


@dataclass(frozen=True, slots=True)
class Companion:
    """One of the further clients of a process that says something of all of them."""

    client_id: str
    properties: Mapping[str, Scalar] = field(default_factory=dict)
    """With a hello alone."""
    greeting: str = ""
    """The message id of the greeting that this answers; else empty."""
    refused: str = ""
    """As in a `Presence`."""


@dataclass(frozen=True, slots=True)
class RollCall:
    """Server to every client: say hello. Or to one: why it takes no part."""

    job: str
    epoch: int
    heartbeat_seconds: float
    """Seconds between heartbeats that the server asks for."""
    run: str = ""
    """As in a `Task`."""
    refused: str = ""
    """Why the job has no part for this client, to go on "clients that ..."; else empty."""
    hears_others: bool = False
    """Whether this server hears of the others in a `Presence`: older ones do not."""


@dataclass(frozen=True, slots=True)
class JobEnded:
    """Server to every client: no more tasks of this job will come."""

    job: str
    epoch: int
    reason: str = ""
    run: str = ""
    """As in a `Task`."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Client to server: publish this model again, I cannot find it."""

    job: str
    client_id: str
    digest: str
    with_tasks: bool = False
    """Whether a model for this client alone comes by its queue of tasks: it has no other."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Client to itself, or to its successor: this task was begun."""

    task_id: str
    client_id: str
    instance: str
    """The process that began it."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """Another envelope's bytes, signed, and sealed if one party alone may read them.

    See `flmq.messaging.protection`. Nothing in it can be believed before its letter is opened.
    """

    kind: str
    """The name of the message's type."""
    sender: str
    """A client's id, or `flmq.e2e.names.SERVER`."""
    recipient: str
    """As ``sender``; or `flmq.e2e.names.EVERYBODY`: it is signed alone."""
    letter: bytes
    job: str = ""
    """Empty: of no job."""
    run: str = ""
    """As in a `Task`."""
    manifest: bytes = b""
    """In what a server sends, which keys speak for its job."""
