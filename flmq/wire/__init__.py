"""What travels: envelopes, their bytes, ids made of what they name, and chunks of large bodies."""

from __future__ import annotations

from flmq.wire.chunks import (
    CHUNK_BYTES,
    Assembler,
    Chunk,
    chunk_from_headers,
    chunk_headers,
    split,
)
from flmq.wire.codec import decode, encode
from flmq.wire.envelopes import (
    Body,
    Failure,
    FailureKind,
    Ins,
    JobEnded,
    Presence,
    PresenceKind,
    Receipt,
    ReceiptOutcome,
    Reply,
    Res,
    RollCall,
    Task,
)
from flmq.wire.ids import derive_nonce, task_id

__all__ = [
    "CHUNK_BYTES",
    "Assembler",
    "Body",
    "Chunk",
    "Failure",
    "FailureKind",
    "Ins",
    "JobEnded",
    "Presence",
    "PresenceKind",
    "Receipt",
    "ReceiptOutcome",
    "Reply",
    "Res",
    "RollCall",
    "Task",
    "chunk_from_headers",
    "chunk_headers",
    "decode",
    "derive_nonce",
    "encode",
    "split",
    "task_id",
]
