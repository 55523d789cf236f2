"""A client's failure, as a strategy's ``aggregate_fit`` finds it in ``failures``."""

from __future__ import annotations

from flmq.round import Outcome

__all__ = ["ClientFailure"]


class ClientFailure(Exception):
    """Why a client did not contribute to a round: its id, the outcome and the reason.

    Never raised: it is an exception because Flower's contract puts exceptions in ``failures``.
    """

    def __init__(self, client_id: str, word: Outcome, reason: str, detail: str = "") -> None:
        """Keep who failed and how; ``detail`` is the end of the client's traceback, or empty."""
        super().__init__(f"client {client_id}: {word.value}: {reason}")
        self.client_id = client_id
        self.outcome = word
        self.reason = reason
        self.detail = detail
