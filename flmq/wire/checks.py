"""Checks of a message's fields beyond their types, both when it is sent and when it is received.

Names of clients, jobs, sites and tasks become parts of queue names, routing keys and file names,
hence the narrow alphabet. The bounds of numbers and texts are in `flmq.wire.bounds`.
"""

from __future__ import annotations

from collections.abc import Mapping

from flmq.common.errors import InvalidClientId
from flmq.common.names import check_client_id, check_job_name
from flmq.common.parameter import parameters_of
from flmq.common.phase import Phase
from flmq.common.typing import FitRes
from flmq.e2e.names import MAX_MANIFEST_BYTES
from flmq.wire.blobs import BlobRef, check_digest
from flmq.wire.bodies import Body
from flmq.wire.bounds import (
    check_epoch,
    check_heartbeat,
    check_instance,
    check_number,
    check_round,
    check_seconds,
    check_unix_ms,
    check_version,
    check_word,
    too_many_properties,
)
from flmq.wire.envelopes import (
    MAX_COMPANIONS,
    Begun,
    Failure,
    JobEnded,
    ModelRequest,
    Presence,
    Receipt,
    Reply,
    RollCall,
    Sealed,
    Task,
)
from flmq.wire.kinds import Kind, NotRegistered, UnknownKind, kind_named
from flmq.wire.regional import (
    MAX_ASKED,
    MAX_COVERS,
    MAX_ORDERS,
    AggregateOrder,
    AggregatorReport,
    Asked,
    EntryOutcome,
    PartialEntry,
    PartialSum,
    SendPartial,
)

__all__ = ["check", "check_entry"]

_MAX_NONCE = 64
_MAX_ASK = 80


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
        case Sealed():
            _check_sealed(body)
        case ModelRequest():
            check_job_name(body.job)
            _check_asked(body.client_id)
            check_digest(body.digest, "digest")
        case AggregateOrder():
            _check_order(body)
        case PartialSum():
            _check_order_head(body)
            if body.blob is not None:
                _check_blob(body.blob, body)
        case SendPartial():
            check_word(body.task_id, "task_id")
            check_job_name(body.job)
            check_epoch(body.epoch)
            _check_run(body.run)
        case AggregatorReport():
            _check_report(body)


def check_entry(entry: PartialEntry) -> None:
    """Check that every field of an entry of a partial sum is valid.

    Raises:
        InvalidClientId: its client id is not.
        ValueError: another field is not; names it.
    """
    check_word(entry.task_id, "task_id")
    check_client_id(entry.client_id)
    check_seconds(entry.seconds, "seconds")
    check_number(entry.bytes, "bytes")
    if entry.digest:
        check_digest(entry.digest, "digest")
    accepted = entry.outcome is EntryOutcome.ACCEPTED
    if accepted and isinstance(entry.res, Failure):
        raise ValueError("an entry that is accepted has no failure")
    if isinstance(entry.res, FitRes) and entry.res.parameters.tensors:
        raise ValueError("an entry has no parameters: they are in the sum")
    if bool(entry.reason) is not (entry.outcome is EntryOutcome.REJECTED):
        raise ValueError("an entry has a reason if it is rejected, and else none")


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
    if task.via:
        check_word(task.via, "via")


def _check_reply(reply: Reply) -> None:
    _check_head(reply)
    if not isinstance(reply.res, Failure | UnknownKind):
        wanted = _kind(reply.phase).res
        if not isinstance(reply.res, wanted):
            raise ValueError(
                f"{reply.phase.value} is answered by {wanted.__name__}, not {_type(reply.res)}"
            )
    check_seconds(reply.seconds, "seconds")
    _check_run(reply.run)
    if reply.base:
        check_digest(reply.base, "base")
    if reply.blob is not None:
        _check_blob(reply.blob, reply.res)


def _check_sealed(sealed: Sealed) -> None:
    check_word(sealed.kind, "kind")
    _check_party(sealed.sender, "sender")
    _check_party(sealed.recipient, "recipient")
    if sealed.job:
        check_job_name(sealed.job)
    _check_run(sealed.run)
    if len(sealed.manifest) > MAX_MANIFEST_BYTES:
        raise ValueError(
            f"a manifest of {len(sealed.manifest)} bytes: at most {MAX_MANIFEST_BYTES}"
        )
    if not sealed.letter:
        raise ValueError("a sealed message without a letter")


def _check_party(name: str, field: str) -> None:
    """Check the name of who sends or receives what is sealed."""
    if name.startswith("!"):
        check_word(name[1:], field)
        return
    try:
        check_client_id(name)
    except InvalidClientId as error:
        raise ValueError(f"{field}: {error}") from error


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
    if len(presence.others) > MAX_COMPANIONS:
        raise ValueError(f"{len(presence.others)} others: {MAX_COMPANIONS} at most")
    # Anything but a dict is refused, by name, when it is written.
    if isinstance(presence.properties, Mapping):
        problem = too_many_properties(len(presence.properties), presence.properties.items())
        if problem:
            raise ValueError(problem)


def _check_order(order: AggregateOrder) -> None:
    _check_order_head(order)
    check_number(order.call, "call")
    if order.timeout_seconds is not None:
        check_seconds(order.timeout_seconds, "timeout_seconds")
    if order.deadline_unix_ms is not None:
        check_unix_ms(order.deadline_unix_ms, "deadline_unix_ms")
    if order.model is not None:
        _check_blob(order.model, order)
    if order.max_reply_bytes is not None:
        check_number(order.max_reply_bytes, "max_reply_bytes")
    if order.answer_to:
        check_word(order.answer_to, "answer_to")
    if not 1 <= len(order.asks) <= MAX_ASKED:
        raise ValueError(f"an order of {len(order.asks)} asks: 1 to {MAX_ASKED} it may have")
    for ask in order.asks:
        _check_ask(ask)
    if len({ask.task_id for ask in order.asks}) < len(order.asks):
        raise ValueError("an order with the same task twice")


def _check_ask(ask: Asked) -> None:
    check_word(ask.task_id, "task_id")
    check_client_id(ask.client_id)
    _check_nonce(ask.nonce)
    if ask.site:
        check_word(ask.site, "site")
    if ask.name and (ask.name.partition("#")[0] != ask.client_id or len(ask.name) > _MAX_ASK):
        raise ValueError(f"the ask {ask.name[:80]!r} is none of client {ask.client_id}")


def _check_order_head(body: AggregateOrder | PartialSum) -> None:
    check_word(body.task_id, "task_id")
    check_round(body.server_round)
    check_job_name(body.job)
    check_word(body.site, "site")
    check_epoch(body.epoch)
    _check_nonce(body.nonce)
    check_word(body.run, "run")


def _check_report(report: AggregatorReport) -> None:
    check_word(report.site, "site")
    check_instance(report.instance)
    check_heartbeat(report.report_seconds)
    check_unix_ms(report.sent_unix_ms, "sent_unix_ms")
    check_version(report.flmq_version)
    if len(report.covers) > MAX_COVERS or len(report.orders) > MAX_ORDERS:
        raise ValueError(
            f"a report of {len(report.covers)} sites and {len(report.orders)} orders: at most "
            f"{MAX_COVERS} and {MAX_ORDERS}"
        )
    for site in report.covers:
        check_word(site, "covers")
    if len(set(report.covers)) < len(report.covers) or report.site not in report.covers:
        raise ValueError("covers must have the aggregator's own site, and each site once")
    for order in report.orders:
        check_word(order.task_id, "task_id")
        if len(order.list_digest) > _MAX_NONCE or len(order.held) > -(-MAX_ASKED // 8):
            raise ValueError(f"an order in hand with a bitmap of {len(order.held)} bytes")


def _check_nonce(nonce: bytes) -> None:
    if not 1 <= len(nonce) <= _MAX_NONCE:
        raise ValueError(f"a nonce of {len(nonce)} bytes: it must have 1 to {_MAX_NONCE}")


def _check_head(body: Task | Reply | Receipt) -> None:
    check_word(body.task_id, "task_id")
    check_round(body.server_round)
    check_job_name(body.job)
    if isinstance(body, Receipt):
        _check_asked(body.client_id)
    else:
        check_client_id(body.client_id)


def _check_asked(name: str) -> None:
    """Check the name of whom something was asked: a client, or the aggregator of a site."""
    if name.startswith("!"):
        check_word(name[1:], "site")
    else:
        check_client_id(name)


def _kind(phase: Phase) -> Kind:
    try:
        return kind_named(phase.value)
    except NotRegistered as error:
        raise ValueError(str(error)) from error


def _type(value: object) -> str:
    return type(value).__name__
