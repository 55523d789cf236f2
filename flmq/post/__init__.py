"""Envelopes and blobs over a transport: sent, taken in, laid aside where nobody can read them."""

from __future__ import annotations

from flmq.post.inbox import Inbox, Letter
from flmq.post.outbox import Outbox, Sent

__all__ = ["Inbox", "Letter", "Outbox", "Sent"]
