"""Convert orders, partial sums and reports of aggregators between dataclasses and protobuf."""

from __future__ import annotations

from collections.abc import Mapping

from flmq.common.errors import MalformedMessage
from flmq.common.typing import FitRes
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.regional import (
    AggregateOrder,
    AggregatorReport,
    Asked,
    EntryOutcome,
    OrderInHand,
    PartialEntry,
    PartialSum,
    ReplyRule,
    SendPartial,
)
from flmq.wire.serde.contract import (
    fit_res_from_proto,
    fit_res_to_proto,
    parameters_from_proto,
    parameters_to_proto,
)
from flmq.wire.serde.envelopes import (
    blob_from_proto,
    blob_to_proto,
    failure_from_proto,
    failure_to_proto,
    member_of,
    phase_from_proto,
    phase_to_proto,
    start_of,
)
from flmq.wire.serde.members import SchemaField
from flmq.wire.serde.times import times_from_proto, times_to_proto

__all__ = ["REGIONAL_BODIES", "entry_from_proto", "entry_to_proto"]

_RULES = {
    ReplyRule.LIKE_SENT: pb.REPLY_RULE_LIKE_SENT,
    ReplyRule.FINITE: pb.REPLY_RULE_FINITE,
    ReplyRule.NONE: pb.REPLY_RULE_NONE,
}
_OUTCOMES = {
    EntryOutcome.ACCEPTED: pb.ENTRY_OUTCOME_ACCEPTED,
    EntryOutcome.FAILED: pb.ENTRY_OUTCOME_FAILED,
    EntryOutcome.REJECTED: pb.ENTRY_OUTCOME_REJECTED,
}


def order_to_proto(order: AggregateOrder, proto: pb.AggregateOrder) -> None:
    """Write an order."""
    _head_to_proto(order, proto)
    proto.call = order.call
    if order.deadline_unix_ms is not None:
        proto.deadline_unix_ms = order.deadline_unix_ms
    if order.timeout_seconds is not None:
        proto.timeout_seconds = order.timeout_seconds
    parameters_to_proto(order.parameters, proto.parameters, "AggregateOrder.parameters")
    if order.model is not None:
        blob_to_proto(order.model, proto.model)
    proto.reply_codec = order.reply_codec
    proto.rule = _RULES[order.rule]
    proto.cast = order.cast
    if order.max_reply_bytes is not None:
        proto.max_reply_bytes = order.max_reply_bytes
    proto.asks.extend(
        pb.Asked(task_id=a.task_id, client_id=a.client_id, nonce=a.nonce, name=a.name, site=a.site)
        for a in order.asks
    )
    proto.answer_to = order.answer_to


def order_from_proto(proto: pb.AggregateOrder) -> AggregateOrder:
    """Read an order."""
    return AggregateOrder(
        task_id=proto.task_id,
        job=proto.job,
        server_round=proto.server_round,
        phase=phase_from_proto(proto),
        site=proto.site,
        epoch=proto.epoch,
        nonce=proto.nonce,
        run=proto.run,
        call=proto.call,
        deadline_unix_ms=proto.deadline_unix_ms if proto.HasField("deadline_unix_ms") else None,
        timeout_seconds=proto.timeout_seconds if proto.HasField("timeout_seconds") else None,
        parameters=parameters_from_proto(proto),
        model=blob_from_proto(proto.model) if proto.HasField("model") else None,
        reply_codec=proto.reply_codec,
        rule=member_of(ReplyRule, _RULES, proto.rule),
        cast=proto.cast,
        max_reply_bytes=proto.max_reply_bytes if proto.HasField("max_reply_bytes") else None,
        asks=tuple(Asked(a.task_id, a.client_id, a.nonce, a.name, a.site) for a in proto.asks),
        answer_to=proto.answer_to,
    )


def partial_to_proto(partial: PartialSum, proto: pb.PartialSum) -> None:
    """Write a partial sum."""
    _head_to_proto(partial, proto)
    parameters_to_proto(partial.parameters, proto.parameters, "PartialSum.parameters")
    if partial.blob is not None:
        blob_to_proto(partial.blob, proto.blob)


def partial_from_proto(proto: pb.PartialSum) -> PartialSum:
    """Read a partial sum."""
    return PartialSum(
        task_id=proto.task_id,
        job=proto.job,
        server_round=proto.server_round,
        phase=phase_from_proto(proto),
        site=proto.site,
        epoch=proto.epoch,
        nonce=proto.nonce,
        run=proto.run,
        parameters=parameters_from_proto(proto),
        blob=blob_from_proto(proto.blob) if proto.HasField("blob") else None,
    )


def entry_to_proto(entry: PartialEntry, proto: pb.PartialEntry) -> None:
    """Write what became of one ask."""
    proto.task_id = entry.task_id
    proto.client_id = entry.client_id
    proto.outcome = _OUTCOMES[entry.outcome]
    proto.reason = start_of(entry.reason)
    if isinstance(entry.res, FitRes):
        fit_res_to_proto(entry.res, proto.fit)
    else:
        failure_to_proto(entry.res, proto.failure)
    proto.seconds = entry.seconds
    proto.bytes = entry.bytes
    proto.digest = entry.digest
    if entry.times is not None:
        times_to_proto(entry.times, proto.times)


def entry_from_proto(proto: pb.PartialEntry) -> PartialEntry:
    """Read what became of one ask."""
    which = proto.WhichOneof("res")
    if which is None:
        raise MalformedMessage("PartialEntry has no res of a kind known here")
    return PartialEntry(
        task_id=proto.task_id,
        client_id=proto.client_id,
        outcome=member_of(EntryOutcome, _OUTCOMES, proto.outcome),
        res=fit_res_from_proto(proto.fit) if which == "fit" else failure_from_proto(proto.failure),
        reason=start_of(proto.reason),
        seconds=proto.seconds,
        bytes=proto.bytes,
        digest=proto.digest,
        times=times_from_proto(proto.times) if proto.HasField("times") else None,
    )


def send_partial_to_proto(wanted: SendPartial, proto: pb.SendPartial) -> None:
    """Write a request for what an aggregator has."""
    proto.task_id = wanted.task_id
    proto.job = wanted.job
    proto.epoch = wanted.epoch
    proto.run = wanted.run


def send_partial_from_proto(proto: pb.SendPartial) -> SendPartial:
    """Read a request for what an aggregator has."""
    return SendPartial(proto.task_id, proto.job, proto.epoch, proto.run)


def report_to_proto(report: AggregatorReport, proto: pb.AggregatorReport) -> None:
    """Write an aggregator's report."""
    proto.site = report.site
    proto.instance = report.instance
    proto.covers.extend(report.covers)
    proto.orders.extend(
        pb.OrderInHand(
            task_id=each.task_id,
            list_digest=each.list_digest,
            held=each.held,
            answered=each.answered,
        )
        for each in report.orders
    )
    proto.sent_unix_ms = report.sent_unix_ms
    proto.report_seconds = report.report_seconds
    proto.flmq_version = report.flmq_version


def report_from_proto(proto: pb.AggregatorReport) -> AggregatorReport:
    """Read an aggregator's report."""
    return AggregatorReport(
        site=proto.site,
        instance=proto.instance,
        covers=tuple(proto.covers),
        orders=tuple(
            OrderInHand(each.task_id, each.list_digest, each.held, each.answered)
            for each in proto.orders
        ),
        sent_unix_ms=proto.sent_unix_ms,
        report_seconds=proto.report_seconds,
        flmq_version=proto.flmq_version,
    )


REGIONAL_BODIES: Mapping[type, SchemaField] = {
    AggregateOrder: SchemaField("aggregate_order", order_to_proto, order_from_proto),
    PartialSum: SchemaField("partial_sum", partial_to_proto, partial_from_proto),
    SendPartial: SchemaField("send_partial", send_partial_to_proto, send_partial_from_proto),
    AggregatorReport: SchemaField("aggregator_report", report_to_proto, report_from_proto),
}
"""The messages of regional aggregation that an envelope may carry."""


def _head_to_proto(
    value: AggregateOrder | PartialSum, proto: pb.AggregateOrder | pb.PartialSum
) -> None:
    proto.task_id = value.task_id
    proto.job = value.job
    proto.server_round = value.server_round
    phase_to_proto(value.phase, proto)
    proto.site = value.site
    proto.epoch = value.epoch
    proto.nonce = value.nonce
    proto.run = value.run
