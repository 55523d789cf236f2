"""What travels: envelopes, their bytes, ids made of what they name, and chunks of large bodies."""

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
    task_of_upload,
    tensors_of,
    upload_name,
)
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
    "CHUNK_BYTES",
    "INLINE_BYTES",
    "Assembler",
    "BlobChunk",
    "BlobProgress",
    "BlobRef",
    "Body",
    "Chunk",
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
    "chunk_from_headers",
    "chunk_headers",
    "decode",
    "derive_nonce",
    "encode",
    "iter_chunks",
    "refer",
    "split",
    "task_id",
    "task_of_upload",
    "tensors_of",
    "upload_name",
]
