"""Checks of a message's fields beyond their types, both when it is sent and when it is received.

Names of clients, jobs, sites and tasks become parts of queue names, routing keys and file names,
hence the narrow alphabet. The bounds of numbers and texts are in `flmq.wire.bounds`.
"""

from __future__ import annotations

from collections.abc import Mapping

from flmq.common.names import check_client_id, check_job_name
from flmq.common.parameter import parameters_of
from flmq.common.phase import Phase
from flmq.wire.blobs import BlobRef, check_digest
from flmq.wire.bounds import (
    check_epoch,
    check_heartbeat,
    check_instance,
    check_round,
    check_seconds,
    check_unix_ms,
    check_version,
    check_word,
    too_many_properties,
)
from flmq.wire.envelopes import (
    Begun,
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
from flmq.wire.kinds import Kind, NotRegistered, UnknownKind, kind_named

__all__ = ["check"]


def check(body: Body) -> None:
    """Check that every field of ``body`` is valid.

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
            check_seconds(body.late_by_seconds, "late_by_seconds")
        case Presence():
            _check_presence(body)
        case RollCall():
            check_job_name(body.job)
            check_epoch(body.epoch)
            check_heartbeat(body.heartbeat_seconds)
            _check_run(body.run)
        case JobEnded():
            check_job_name(body.job)
            check_epoch(body.epoch)
            _check_run(body.run)
        case Begun():
            check_word(body.task_id, "task_id")
            check_client_id(body.client_id)
            check_instance(body.instance)
        case ModelRequest():
            check_job_name(body.job)
            check_client_id(body.client_id)
            check_digest(body.digest, "digest")


def _check_run(run: str) -> None:
    if run:  # older servers do not send it
        check_word(run, "run")


def _check_task(task: Task) -> None:
    _check_head(task)
    _check_run(task.run)
    if not isinstance(task.ins, UnknownKind):
        wanted = _kind(task.phase).ins
        if not isinstance(task.ins, wanted):
            raise ValueError(
                f"{task.phase.value} asks with {wanted.__name__}, not {_type(task.ins)}"
            )
    if task.timeout_seconds is not None:
        check_seconds(task.timeout_seconds, "timeout_seconds")
    if task.deadline_unix_ms is not None:
        check_unix_ms(task.deadline_unix_ms, "deadline_unix_ms")
    if task.model is not None:
        _check_blob(task.model, task.ins)


def _check_reply(reply: Reply) -> None:
    _check_head(reply)
    if not isinstance(reply.res, Failure | UnknownKind):
        wanted = _kind(reply.phase).res
        if not isinstance(reply.res, wanted):
            raise ValueError(
                f"{reply.phase.value} is answered by {wanted.__name__}, not {_type(reply.res)}"
            )
    check_seconds(reply.seconds, "seconds")
    if reply.blob is not None:
        _check_blob(reply.blob, reply.res)


def _check_blob(ref: BlobRef, holder: object) -> None:
    ref.check()
    check_unix_ms(ref.published_unix_ms, "published_unix_ms")
    if parameters_of(holder) is None and not isinstance(holder, UnknownKind):
        raise ValueError(f"a {_type(holder)} has no parameters that could follow")


def _check_presence(presence: Presence) -> None:
    check_client_id(presence.client_id)
    check_word(presence.site, "site")
    check_instance(presence.instance)
    check_heartbeat(presence.heartbeat_seconds)
    check_unix_ms(presence.sent_unix_ms, "sent_unix_ms")
    check_version(presence.flmq_version)
    # Anything but a dict is refused, by name, when it is written.
    if isinstance(presence.properties, Mapping):
        problem = too_many_properties(len(presence.properties), presence.properties.items())
        if problem:
            raise ValueError(problem)


def _check_head(body: Task | Reply | Receipt) -> None:
    check_word(body.task_id, "task_id")
    check_round(body.server_round)
    check_job_name(body.job)
    check_client_id(body.client_id)


def _kind(phase: Phase) -> Kind:
    try:
        return kind_named(phase.value)
    except NotRegistered as error:
        raise ValueError(str(error)) from error


def _type(value: object) -> str:
    return type(value).__name__
