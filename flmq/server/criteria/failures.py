"""Skip clients that failed in recent rounds."""

from __future__ import annotations

from collections.abc import Iterable

from flmq.common.logger import get_logger
from flmq.round import Outcome, TaskOutcome, client_of
from flmq.server.client_proxy import ClientProxy
from flmq.server.criterion import Criterion, InvalidCriterion

__all__ = ["KEPT_ROUNDS", "FailureLog", "NoRecentFailure", "failed_clients"]

logger = get_logger(__name__)

KEPT_ROUNDS = 100
"""Rounds for which it is remembered who failed."""
_FAILURES = (Outcome.FAILED, Outcome.REJECTED, Outcome.UNROUTABLE)


def failed_clients(outcomes: Iterable[TaskOutcome], closed: str) -> set[str]:
    """Return the clients that failed in a phase that closed for the reason ``closed``.

    Those that did not answer failed if the phase closed at its deadline, and not if it closed
    because enough others had answered.
    """
    failures = (*_FAILURES, Outcome.SILENT) if closed == "deadline" else _FAILURES
    return {client_of(each.client_id) for each in outcomes if each.outcome in failures}


class FailureLog:
    """In which round each client failed last, over the last `KEPT_ROUNDS` rounds.

    It is a function of how phases closed, which the journal records: a resumed server has the same.
    """

    def __init__(self) -> None:
        """Know of no failure."""
        self._last: dict[str, int] = {}
        self._round = 0

    def begin(self, server_round: int) -> None:
        """Begin a round, or another phase of it; forget what is too old."""
        if server_round != self._round:
            self._round = server_round
            oldest = server_round - KEPT_ROUNDS
            self._last = {client: at for client, at in self._last.items() if at >= oldest}

    def note(self, server_round: int, client_ids: Iterable[str]) -> None:
        """Note who failed in a round."""
        for client_id in client_ids:
            self._last[client_id] = max(server_round, self._last.get(client_id, 0))

    def failed(self, client_id: str, rounds: int) -> bool:
        """Return whether a client failed in this round, or one of the last ``rounds``."""
        last = self._last.get(client_id)
        return last is not None and last >= self._round - rounds


class NoRecentFailure(Criterion):
    """The clients that did not fail in the last ``rounds`` rounds.

    A client fails if it reports a failure, its reply is refused, it has no queue, or it has not
    answered at the deadline; in training or in evaluation. `sample` does not wait for clients that
    have failed: a round for which too few are left asks nobody.
    """

    def __init__(self, rounds: int = 1) -> None:
        """Skip a client for ``rounds`` rounds after its failure.

        Raises:
            InvalidCriterion: ``rounds`` is out of range.
        """
        whole = isinstance(rounds, int) and not isinstance(rounds, bool)
        if not whole or not 1 <= rounds <= KEPT_ROUNDS:
            raise InvalidCriterion(f"rounds is {rounds!r}: give a number from 1 to {KEPT_ROUNDS}")
        self.rounds = rounds
        self._failures: FailureLog | None = None
        self._said = False

    def learn(self, failures: FailureLog) -> None:
        """Look there from now on."""
        self._failures = failures

    def select(self, client: ClientProxy) -> bool:
        """Return whether it has not failed recently."""
        if self._failures is None:
            if not self._said:
                self._said = True
                logger.warning(
                    "%r selects everybody: the client manager keeps no log of failures, as "
                    "SimpleClientManager does",
                    self,
                )
            return True
        return not self._failures.failed(client.cid, self.rounds)

    def why_not(self, client: ClientProxy) -> str:
        """Say that it failed."""
        plural = "" if self.rounds == 1 else f"{self.rounds} "
        return f"failed in the last {plural}round{'s' if plural else ''}"

    def __repr__(self) -> str:
        """Show the number of rounds."""
        return f"NoRecentFailure(rounds={self.rounds})"
