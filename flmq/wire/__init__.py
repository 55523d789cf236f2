"""What travels: envelopes, their bytes, ids made of what they name, and chunks of large bodies."""

from __future__ import annotations

from flmq.wire.chunks import Assembler, Chunk, split
from flmq.wire.codec import decode, encode
from flmq.wire.envelopes import (
    Body,
    Failure,
    FailureKind,
    JobEnded,
    Presence,
    PresenceKind,
    Receipt,
    ReceiptOutcome,
    Reply,
    RollCall,
    Task,
)
from flmq.wire.ids import derive_nonce, task_id

__all__ = [
    "Assembler",
    "Body",
    "Chunk",
    "Failure",
    "FailureKind",
    "JobEnded",
    "Presence",
    "PresenceKind",
    "Receipt",
    "ReceiptOutcome",
    "Reply",
    "RollCall",
    "Task",
    "decode",
    "derive_nonce",
    "encode",
    "split",
    "task_id",
]
