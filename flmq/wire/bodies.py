"""Every message that an envelope may carry, as one type."""

from __future__ import annotations

from flmq.wire.envelopes import (
    Begun,
    JobEnded,
    ModelRequest,
    Presence,
    Receipt,
    Reply,
    RollCall,
    Sealed,
    Task,
)
from flmq.wire.regional import AggregateOrder, AggregatorReport, PartialSum, SendPartial

__all__ = ["Body"]

Body = (
    Task
    | Reply
    | Receipt
    | Presence
    | RollCall
    | JobEnded
    | ModelRequest
    | Begun
    | AggregateOrder
    | PartialSum
    | SendPartial
    | AggregatorReport
    | Sealed
)
