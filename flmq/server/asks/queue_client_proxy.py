"""Represent a client behind the broker: calls to it become tasks on its queue."""

from __future__ import annotations

from typing import Any, Protocol, cast

from flmq.common.typing import (
    DisconnectRes,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    ReconnectIns,
)
from flmq.server.client_proxy import ClientProxy
from flmq.server.job.client_failure import ClientFailure
from flmq.server.job.request import Ask, PhaseResult, Request
from flmq.wire import Ins
from flmq.wire.kinds import kind_of

__all__ = ["PhaseRunner", "QueueClientProxy"]


class PhaseRunner(Protocol):
    """Asks clients, and waits for their replies."""

    def begin(self, server_round: int, step: str) -> None:
        """Note which step of which round the strategy is about to be called for."""

    def run_phase(self, request: Request) -> PhaseResult:
        """Ask, wait until the phase closes, and return its result."""

    def run_direct(self, request: Request, group_id: int | None) -> PhaseResult:
        """Ask one client for a strategy, in round ``group_id``; None: the current round."""


class QueueClientProxy(ClientProxy):
    """One client of a job, reached through its queue.

    A strategy's calls survive a kill of the server: the interrupted method is called again, and its
    calls find the answers already recorded. Timeouts are in seconds; None: wait without limit.
    """

    def __init__(self, cid: str, phase_runner: PhaseRunner) -> None:
        """Reach client ``cid`` through ``phase_runner``."""
        super().__init__(cid)
        self._phase_runner = phase_runner

    def get_properties(
        self, ins: GetPropertiesIns, timeout: float | None, group_id: int | None = None
    ) -> GetPropertiesRes:
        """Ask for its properties; raise `ClientFailure` if it fails to answer."""
        return cast(GetPropertiesRes, self.ask(ins, timeout, group_id))

    def get_parameters(
        self, ins: GetParametersIns, timeout: float | None, group_id: int | None = None
    ) -> GetParametersRes:
        """Ask for its parameters; raise `ClientFailure` if it fails to answer."""
        return cast(GetParametersRes, self.ask(ins, timeout, group_id))

    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None = None) -> FitRes:
        """Have it train; raise `ClientFailure` if it fails to."""
        return cast(FitRes, self.ask(ins, timeout, group_id))

    def evaluate(
        self, ins: EvaluateIns, timeout: float | None, group_id: int | None = None
    ) -> EvaluateRes:
        """Have it evaluate; raise `ClientFailure` if it fails to."""
        return cast(EvaluateRes, self.ask(ins, timeout, group_id))

    def reconnect(
        self, ins: ReconnectIns, timeout: float | None, group_id: int | None = None
    ) -> DisconnectRes:
        """Have it disconnect, and reconnect after ``ins.seconds`` if given."""
        return cast(DisconnectRes, self.ask(ins, timeout, group_id))

    def ask(self, ins: Ins, timeout: float | None, group_id: int | None = None) -> Any:
        """Send it a message of any kind; raise `ClientFailure` if it fails to answer."""
        request = Request(kind_of(ins).phase, group_id or 0, [Ask(self.cid, ins)], timeout)
        result = self._phase_runner.run_direct(request, group_id)
        if result.replies:
            return result.replies[self.cid]
        failure = result.failures[0]
        if isinstance(failure, ClientFailure):
            raise failure
        return failure[1]
