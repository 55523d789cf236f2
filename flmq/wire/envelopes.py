"""The messages between server and clients, as data (``schemas/flmq/v1/envelopes.proto``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from flmq.common.failure_text import named_text
from flmq.common.phase import Phase
from flmq.common.typing import Scalar
from flmq.wire.blobs import BlobRef

__all__ = [
    "MAX_FAILURE_TEXT",
    "Begun",
    "Body",
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
    "Task",
]

MAX_FAILURE_TEXT = 4096
"""Bytes of UTF-8 to which each text of a `Failure` is cut when it is sent."""

Ins = object
"""What a client is asked with: of the ``ins`` type of a kind (`flmq.wire.kinds`), as `FitIns`."""
Res = object
"""What a client answers: of the ``res`` type of a kind, or a `Failure`."""


class FailureKind(Enum):
    """Why a client has no result."""

    EXCEPTION = "exception"
    """The client's code raised."""
    EXPIRED = "expired"
    """The task's deadline had passed before the client came to it."""
    REFUSED = "refused"
    """The client does not take this task."""
    BAD_RETURN = "bad_return"
    """The client's code returned something of the wrong form."""
    SETTLED = "settled"
    """The client was told before that its reply was taken, and let go of it."""


class ReceiptOutcome(Enum):
    """What became of a reply."""

    ACCEPTED = "accepted"
    LATE = "late"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"


class PresenceKind(Enum):
    """What a client says about being there."""

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
    """Fencing: raised at every start of the job's server."""
    nonce: bytes
    """To be echoed in the reply: proof that its sender has read this task."""
    ins: Ins
    """Of the type that its phase asks with."""
    deadline_unix_ms: int | None = None
    """Milliseconds since 1970 UTC; None: no deadline."""
    timeout_seconds: float | None = None
    """Seconds that the client is given; None: no limit."""
    model: BlobRef | None = None
    """The parameters that ``ins`` lacks: in the stream of models, or to be asked for."""
    reply_codec: str = ""
    """How the reply's parameters may be compressed, against ``model``; empty: not at all."""
    run: str = ""
    """Tells runs of one job apart: epochs are compared within one of them only."""
    again: int = 0
    """Epoch of the server that wants it done anew though the client was told before that its reply
    was taken; 0: it is done once."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A client's word that it has no result, and why."""

    kind: FailureKind
    exception_type: str = ""
    message: str = ""
    """Its first `MAX_FAILURE_TEXT` bytes are sent."""
    traceback_tail: str = ""
    """Its last `MAX_FAILURE_TEXT` bytes are sent."""

    @property
    def text(self) -> str:
        """``exception_type: message``, or the one of the two that is not empty."""
        return named_text(self.exception_type, self.message)


@dataclass(frozen=True, slots=True)
class Reply:
    """Client to server: this came of the task."""

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
    """How long the call took on the client."""
    res: Res
    """Of the type that answers its phase, or a failure."""
    blob: BlobRef | None = None
    """The parameters that ``res`` lacks: they follow in chunks."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Server to client: what became of your reply."""

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
    """Client to whoever listens: I am here, or I go."""

    kind: PresenceKind
    client_id: str
    site: str
    instance: str
    """Unique to the client's process: tells a restart from a second process of the same id."""
    properties: Mapping[str, Scalar] = field(default_factory=dict)
    sent_unix_ms: int = 0
    """Milliseconds since 1970 UTC, by the client's clock."""
    heartbeat_seconds: float = 0.0
    """Seconds until the next heartbeat at the latest; 0: none will come."""
    flmq_version: str = ""
    refused: str = ""
    """Why ``properties`` is empty though the client sent some; empty: it is not. Not sent."""


@dataclass(frozen=True, slots=True)
class RollCall:
    """Server to every client: say hello."""

    job: str
    epoch: int
    heartbeat_seconds: float
    """Seconds between the heartbeats that the server would like."""
    run: str = ""
    """As in a `Task`."""


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


@dataclass(frozen=True, slots=True)
class Begun:
    """Client to itself, or to who takes its place: this task was begun."""

    task_id: str
    client_id: str
    instance: str
    """The process that began it."""


Body = Task | Reply | Receipt | Presence | RollCall | JobEnded | ModelRequest | Begun
