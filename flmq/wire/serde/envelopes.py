"""Convert tasks, replies, receipts and notices between dataclasses and protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from flmq.common.errors import MalformedMessage
from flmq.common.phase import Phase
from flmq.wire.blobs import BlobRef
from flmq.wire.envelopes import (
    MAX_FAILURE_TEXT,
    Begun,
    Failure,
    FailureKind,
    JobEnded,
    ModelRequest,
    Receipt,
    ReceiptOutcome,
    Reply,
    Sealed,
    Task,
)
from flmq.wire.kinds import UnknownKind, find_kind
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.serde import builtin
from flmq.wire.serde.members import PAYLOAD, Codec, PayloadCodec, SchemaField
from flmq.wire.serde.times import times_from_proto, times_to_proto

_E = TypeVar("_E", bound=Enum)

_NUMBERS = {kind.phase: number for number, kind in builtin.KINDS.items()}
_FAILURES = {
    FailureKind.EXCEPTION: pb.FAILURE_KIND_EXCEPTION,
    FailureKind.EXPIRED: pb.FAILURE_KIND_EXPIRED,
    FailureKind.REFUSED: pb.FAILURE_KIND_REFUSED,
    FailureKind.BAD_RETURN: pb.FAILURE_KIND_BAD_RETURN,
    FailureKind.SETTLED: pb.FAILURE_KIND_SETTLED,
}
_OUTCOMES = {
    ReceiptOutcome.ACCEPTED: pb.RECEIPT_OUTCOME_ACCEPTED,
    ReceiptOutcome.LATE: pb.RECEIPT_OUTCOME_LATE,
    ReceiptOutcome.REJECTED: pb.RECEIPT_OUTCOME_REJECTED,
    ReceiptOutcome.DUPLICATE: pb.RECEIPT_OUTCOME_DUPLICATE,
}


def task_to_proto(task: Task, proto: pb.Task) -> None:
    """Write a task."""
    _head_to_proto(task, proto)
    proto.epoch = task.epoch
    proto.nonce = task.nonce
    if task.deadline_unix_ms is not None:
        proto.deadline_unix_ms = task.deadline_unix_ms
    if task.timeout_seconds is not None:
        proto.timeout_seconds = task.timeout_seconds
    if task.model is not None:
        blob_to_proto(task.model, proto.model)
    proto.reply_codec = task.reply_codec
    proto.run = task.run
    proto.again = task.again
    proto.via = task.via
    _member_to_proto(task.ins, proto, _codecs(task.phase)[0])


def task_from_proto(proto: pb.Task) -> Task:
    """Read a task."""
    head = _head_from_proto(proto)
    return Task(
        **head,
        epoch=proto.epoch,
        nonce=proto.nonce,
        ins=_member_from_proto(proto, "ins", _INS, _codecs(head["phase"])[0]),
        deadline_unix_ms=proto.deadline_unix_ms if proto.HasField("deadline_unix_ms") else None,
        timeout_seconds=proto.timeout_seconds if proto.HasField("timeout_seconds") else None,
        model=blob_from_proto(proto.model) if proto.HasField("model") else None,
        reply_codec=proto.reply_codec,
        run=proto.run,
        again=proto.again,
        via=proto.via,
    )


def reply_to_proto(reply: Reply, proto: pb.Reply) -> None:
    """Write a reply."""
    _head_to_proto(reply, proto)
    proto.epoch = reply.epoch
    proto.nonce = reply.nonce
    proto.seconds = reply.seconds
    if reply.blob is not None:
        blob_to_proto(reply.blob, proto.blob)
    proto.base = reply.base
    proto.run = reply.run
    if reply.times is not None:
        times_to_proto(reply.times, proto.times)
    codec = _FAILURE if isinstance(reply.res, Failure) else _codecs(reply.phase)[1]
    _member_to_proto(reply.res, proto, codec)


def reply_from_proto(proto: pb.Reply) -> Reply:
    """Read a reply."""
    head = _head_from_proto(proto)
    return Reply(
        **head,
        epoch=proto.epoch,
        nonce=proto.nonce,
        seconds=proto.seconds,
        res=_member_from_proto(proto, "res", _RES, _codecs(head["phase"])[1]),
        blob=blob_from_proto(proto.blob) if proto.HasField("blob") else None,
        base=proto.base,
        run=proto.run,
        times=times_from_proto(proto.times) if proto.HasField("times") else None,
    )


def failure_to_proto(failure: Failure, proto: pb.Failure) -> None:
    """Write a failure with its texts cut: an exception's message may contain a whole data set."""
    proto.kind = _FAILURES[failure.kind]
    proto.exception_type = start_of(failure.exception_type)
    proto.message = start_of(failure.message)
    proto.traceback_tail = _end(failure.traceback_tail)


def failure_from_proto(proto: pb.Failure) -> Failure:
    """Read a failure."""
    return Failure(
        kind=member_of(FailureKind, _FAILURES, proto.kind),
        exception_type=start_of(proto.exception_type),
        message=start_of(proto.message),
        traceback_tail=_end(proto.traceback_tail),
    )


def receipt_to_proto(receipt: Receipt, proto: pb.Receipt) -> None:
    """Write a receipt."""
    _head_to_proto(receipt, proto)
    proto.outcome = _OUTCOMES[receipt.outcome]
    proto.reason = start_of(receipt.reason)
    proto.late_by_seconds = receipt.late_by_seconds


def receipt_from_proto(proto: pb.Receipt) -> Receipt:
    """Read a receipt."""
    return Receipt(
        **_head_from_proto(proto),
        outcome=member_of(ReceiptOutcome, _OUTCOMES, proto.outcome),
        reason=proto.reason,
        late_by_seconds=proto.late_by_seconds,
    )


def job_ended_to_proto(ended: JobEnded, proto: pb.JobEnded) -> None:
    """Write the end of a job."""
    proto.job = ended.job
    proto.epoch = ended.epoch
    proto.reason = start_of(ended.reason)
    proto.run = ended.run


def job_ended_from_proto(proto: pb.JobEnded) -> JobEnded:
    """Read the end of a job."""
    return JobEnded(proto.job, proto.epoch, proto.reason, proto.run)


def begun_to_proto(begun: Begun, proto: pb.Begun) -> None:
    """Write a note that a task was begun."""
    proto.task_id = begun.task_id
    proto.client_id = begun.client_id
    proto.instance = begun.instance


def begun_from_proto(proto: pb.Begun) -> Begun:
    """Read a note that a task was begun."""
    return Begun(proto.task_id, proto.client_id, proto.instance)


def model_request_to_proto(request: ModelRequest, proto: pb.ModelRequest) -> None:
    """Write a request for a model."""
    proto.job = request.job
    proto.client_id = request.client_id
    proto.digest = request.digest
    proto.with_tasks = request.with_tasks


def model_request_from_proto(proto: pb.ModelRequest) -> ModelRequest:
    """Read a request for a model."""
    return ModelRequest(proto.job, proto.client_id, proto.digest, proto.with_tasks)


def sealed_to_proto(sealed: Sealed, proto: pb.Sealed) -> None:
    """Write a signed or sealed envelope."""
    proto.kind = sealed.kind
    proto.sender = sealed.sender
    proto.recipient = sealed.recipient
    proto.job = sealed.job
    proto.run = sealed.run
    proto.manifest = sealed.manifest
    proto.letter = sealed.letter


def sealed_from_proto(proto: pb.Sealed) -> Sealed:
    """Read a signed or sealed envelope."""
    return Sealed(
        proto.kind,
        proto.sender,
        proto.recipient,
        proto.letter,
        proto.job,
        proto.run,
        proto.manifest,
    )


def blob_to_proto(ref: BlobRef, proto: pb.BlobRef) -> None:
    """Write a reference to a blob."""
    proto.digest = ref.digest
    proto.tensor_type = ref.tensor_type
    proto.lengths.extend(ref.lengths)
    proto.chunk_bytes = ref.chunk_bytes
    proto.codec = ref.codec
    proto.base = ref.base
    proto.published_unix_ms = ref.published_unix_ms
    proto.names.extend(ref.names)
    proto.key = ref.key


def blob_from_proto(proto: pb.BlobRef) -> BlobRef:
    """Read a reference to a blob."""
    return BlobRef(
        digest=proto.digest,
        tensor_type=proto.tensor_type,
        lengths=tuple(proto.lengths),
        chunk_bytes=proto.chunk_bytes,
        codec=proto.codec,
        base=proto.base,
        published_unix_ms=proto.published_unix_ms,
        names=tuple(proto.names),
        key=proto.key,
    )


_FAILURE = SchemaField("failure", failure_to_proto, failure_from_proto)
_INS = {
    codec.field: codec
    for kind in builtin.KINDS.values()
    if isinstance(codec := kind.ins_codec, SchemaField)
}
_RES = {
    codec.field: codec
    for codec in (_FAILURE, *(kind.res_codec for kind in builtin.KINDS.values()))
    if isinstance(codec, SchemaField)
}
BODIES: Mapping[type, SchemaField] = {
    Task: SchemaField("task", task_to_proto, task_from_proto),
    Reply: SchemaField("reply", reply_to_proto, reply_from_proto),
    Receipt: SchemaField("receipt", receipt_to_proto, receipt_from_proto),
    JobEnded: SchemaField("job_ended", job_ended_to_proto, job_ended_from_proto),
    ModelRequest: SchemaField("model_request", model_request_to_proto, model_request_from_proto),
    Begun: SchemaField("begun", begun_to_proto, begun_from_proto),
    Sealed: SchemaField("sealed", sealed_to_proto, sealed_from_proto),
}
"""The messages that an envelope may carry."""


def _codecs(phase: Phase) -> tuple[Codec | None, Codec | None]:
    """Return the codecs of a phase's request and answer; None each if its kind is unknown here."""
    kind = find_kind(phase)
    return (None, None) if kind is None else (kind.ins_codec, kind.res_codec)


def _member_to_proto(value: object, proto: Any, codec: Codec | None) -> None:
    """Write the member of a oneof that ``value`` is."""
    if isinstance(value, UnknownKind):
        proto.payload = value.payload
    else:
        assert codec is not None, "checked before"
        codec.write(value, proto)


def _member_from_proto(
    proto: Any, oneof: str, fields: Mapping[str, SchemaField], codec: Codec | None
) -> Any:
    """Read whichever member of a oneof is set; None as ``codec``: the kind is not known here."""
    name = proto.WhichOneof(oneof)
    if name in fields:
        return fields[name].read(proto)
    if name == PAYLOAD and codec is None:
        return UnknownKind(proto.payload)
    if name == PAYLOAD and isinstance(codec, PayloadCodec):
        return codec.read(proto)
    raise MalformedMessage(f"{proto.DESCRIPTOR.name} has no {oneof} of a kind known here")


def _head_to_proto(value: Task | Reply | Receipt, proto: pb.Task | pb.Reply | pb.Receipt) -> None:
    """Write what names a task."""
    proto.task_id = value.task_id
    proto.job = value.job
    proto.server_round = value.server_round
    phase_to_proto(value.phase, proto)
    proto.client_id = value.client_id


def _head_from_proto(proto: pb.Task | pb.Reply | pb.Receipt) -> dict[str, Any]:
    """Read what names a task, as keyword arguments."""
    return {
        "task_id": proto.task_id,
        "job": proto.job,
        "server_round": proto.server_round,
        "phase": phase_from_proto(proto),
        "client_id": proto.client_id,
    }


def phase_to_proto(phase: Phase, proto: Any) -> None:
    """Write what kind of message a message is of."""
    proto.phase = _NUMBERS.get(phase, pb.PHASE_OF_KIND)
    if proto.phase == pb.PHASE_OF_KIND:
        proto.kind = phase.value


def phase_from_proto(proto: Any) -> Phase:
    """Read what kind of message it is of."""
    if proto.phase == pb.PHASE_OF_KIND:
        phase = Phase(proto.kind)
        if phase not in _NUMBERS:
            return phase
    elif proto.phase in builtin.KINDS:
        return builtin.KINDS[proto.phase].phase
    raise MalformedMessage(f"Phase {int(proto.phase)} {proto.kind!r} is none of those known here")


def member_of(enum: type[_E], numbers: Mapping[_E, int], number: int) -> _E:
    """Return the member of ``enum`` for ``number``; unspecified is refused."""
    for member, its_number in numbers.items():
        if its_number == number:
            return member
    raise MalformedMessage(f"{enum.__name__} {int(number)} is none of those known here")


def start_of(text: str) -> str:
    """Return the first `MAX_FAILURE_TEXT` bytes of a text, whatever characters it has."""
    return _utf8(text)[:MAX_FAILURE_TEXT].decode(errors="ignore")


def _end(text: str) -> str:
    """Return the last `MAX_FAILURE_TEXT` bytes of a text, whatever characters it has."""
    return _utf8(text)[-MAX_FAILURE_TEXT:].decode(errors="ignore")


def _utf8(text: str) -> bytes:
    """Return the text as UTF-8; lone surrogates, as in undecodable file names, are escaped."""
    return text.encode(errors="backslashreplace")
