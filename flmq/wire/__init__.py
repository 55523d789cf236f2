"""The wire format: envelopes and their bytes, deterministic ids, and blobs of parameters."""

from __future__ import annotations

from flmq.wire.blobs import (
    INLINE_BYTES,
    BlobChunk,
    BlobProgress,
    BlobRef,
    blob_chunk_headers,
    blob_chunk_of,
    iter_chunks,
    refer,
    size_of,
    task_of_upload,
    tensors_of,
    upload_name,
)
from flmq.wire.codec import decode, encode
from flmq.wire.envelopes import (
    Begun,
    Body,
    Failure,
    FailureKind,
    Ins,
    JobEnded,
    ModelRequest,
    Presence,
    PresenceKind,
    Receipt,
    ReceiptOutcome,
    Reply,
    Res,
    RollCall,
    Task,
)
from flmq.wire.fileparameters import FileParameters
from flmq.wire.ids import derive_nonce, task_id

__all__ = [
    "INLINE_BYTES",
    "Begun",
    "BlobChunk",
    "BlobProgress",
    "BlobRef",
    "Body",
    "Failure",
    "FailureKind",
    "FileParameters",
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
    "blob_chunk_headers",
    "blob_chunk_of",
    "decode",
    "derive_nonce",
    "encode",
    "iter_chunks",
    "refer",
    "size_of",
    "task_id",
    "task_of_upload",
    "tensors_of",
    "upload_name",
]
