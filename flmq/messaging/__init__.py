"""Envelopes and blobs over a transport: sent, taken in, laid aside where nobody can read them."""

from __future__ import annotations

from flmq.messaging.inbox import Inbox, Incoming
from flmq.messaging.sender import Sender, Sent

__all__ = ["Inbox", "Incoming", "Sender", "Sent"]
