"""A private strategy around another one: what is left to that, and what is not."""

from __future__ import annotations

from dataclasses import dataclass

from flmq.server.strategy import wrapping
from flmq.server.strategy.late import LateReplies
from flmq.server.strategy.privacy.options import LateRepliesNotPrivate

__all__ = ["Wrapping"]


@dataclass(eq=False, repr=False)
class Wrapping(wrapping.Wrapping):
    """Leave to ``strategy`` all but the training of a round, and late replies."""

    @property
    def late_replies(self) -> LateReplies:
        """A late reply is dropped: each client has at most one in a round."""
        return LateReplies.DROP

    @late_replies.setter
    def late_replies(self, late: LateReplies) -> None:
        if late is not LateReplies.DROP:
            raise LateRepliesNotPrivate
