"""Envelopes over a transport: sent whole or in chunks, taken in and put together again."""

from __future__ import annotations

from flmq.post.inbox import Inbox, Letter
from flmq.post.outbox import Outbox, Sent

__all__ = ["Inbox", "Letter", "Outbox", "Sent"]
