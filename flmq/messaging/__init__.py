"""Send and receive envelopes and blobs over a transport; dead-letter what cannot be read."""

from __future__ import annotations

from flmq.messaging.inbox import Inbox, Incoming
from flmq.messaging.protection import PLAIN, Opened, Plain, Protection
from flmq.messaging.sender import Sender, Sent

__all__ = ["PLAIN", "Inbox", "Incoming", "Opened", "Plain", "Protection", "Sender", "Sent"]
