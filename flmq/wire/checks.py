"""What a message's fields must hold beyond their types: checked when it is sent and when it comes.

Names of clients, jobs, sites and tasks end in queue names, routing keys and file names, hence the
narrow alphabet.
"""

from __future__ import annotations

import math
import re
from types import UnionType

from flmq.common.names import check_client_id, check_job_name
from flmq.common.phase import Phase
from flmq.common.typing import (
    DisconnectRes,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    ReconnectIns,
)
from flmq.wire.blobs import BlobRef, check_digest
from flmq.wire.envelopes import (
    Body,
    Failure,
    JobEnded,
    ModelRequest,
    Presence,
    Receipt,
    Reply,
    RollCall,
    Task,
)

__all__ = ["check"]

_TYPES: dict[Phase, tuple[type, type]] = {
    Phase.FIT: (FitIns, FitRes),
    Phase.EVALUATE: (EvaluateIns, EvaluateRes),
    Phase.GET_PARAMETERS: (GetParametersIns, GetParametersRes),
    Phase.GET_PROPERTIES: (GetPropertiesIns, GetPropertiesRes),
    Phase.RECONNECT: (ReconnectIns, DisconnectRes),
}
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_INSTANCE = 200


def check(body: Body) -> None:
    """Do nothing if every field of ``body`` is usable.

    Raises:
        InvalidClientId: its client id is not.
        InvalidJobName: its job name is not.
        ValueError: another field is not; names it.
    """
    match body:
        case Task():
            _check_task(body)
        case Reply():
            _check_reply(body)
        case Receipt():
            _check_head(body)
            _check_seconds(body.late_by_seconds, "late_by_seconds")
        case Presence():
            _check_presence(body)
        case RollCall():
            check_job_name(body.job)
            _check_seconds(body.heartbeat_seconds, "heartbeat_seconds")
        case JobEnded():
            check_job_name(body.job)
        case ModelRequest():
            check_job_name(body.job)
            check_client_id(body.client_id)
            check_digest(body.digest, "digest")


def _check_task(task: Task) -> None:
    _check_head(task)
    wanted = _TYPES[task.phase][0]
    if not isinstance(task.ins, wanted):
        raise ValueError(f"{task.phase} asks with {wanted.__name__}, not {_type(task.ins)}")
    if task.timeout_seconds is not None:
        _check_seconds(task.timeout_seconds, "timeout_seconds")
    if task.model is not None:
        _check_blob(task.model, task.ins, FitIns | EvaluateIns)


def _check_reply(reply: Reply) -> None:
    _check_head(reply)
    wanted = _TYPES[reply.phase][1]
    if not isinstance(reply.res, wanted | Failure):
        raise ValueError(f"{reply.phase} is answered by {wanted.__name__}, not {_type(reply.res)}")
    _check_seconds(reply.seconds, "seconds")
    if reply.blob is not None:
        _check_blob(reply.blob, reply.res, FitRes | GetParametersRes)


def _check_blob(ref: BlobRef, holder: object, holders: type | UnionType) -> None:
    ref.check()
    if not isinstance(holder, holders):
        raise ValueError(f"a {_type(holder)} has no parameters that could follow")


def _check_presence(presence: Presence) -> None:
    check_client_id(presence.client_id)
    _check_word(presence.site, "site")
    if not 1 <= len(presence.instance) <= _MAX_INSTANCE:
        raise ValueError(f"instance has {len(presence.instance)} characters, not 1 to 200")
    _check_seconds(presence.heartbeat_seconds, "heartbeat_seconds")


def _check_head(body: Task | Reply | Receipt) -> None:
    _check_word(body.task_id, "task_id")
    check_job_name(body.job)
    check_client_id(body.client_id)


def _check_word(word: str, name: str) -> None:
    if _WORD.fullmatch(word) is None:
        raise ValueError(f"{name} {word[:80]!r} is not 1 to 64 of A-Z, a-z, 0-9, '_' and '-'")


def _check_seconds(seconds: float, name: str) -> None:
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{name} is {seconds}: it must be finite and not negative")


def _type(value: object) -> str:
    return type(value).__name__
