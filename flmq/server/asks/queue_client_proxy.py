"""A client behind the broker: its calls become tasks on its queue."""

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
        """Hear what the strategy is about to be called for, and in which round."""

    def run_phase(self, request: Request) -> PhaseResult:
        """Ask, and wait until the phase closes."""

    def run_direct(self, request: Request, group_id: int | None) -> PhaseResult:
        """Ask one client on behalf of a strategy, in round ``group_id`` or the current one."""


class QueueClientProxy(ClientProxy):
    """One client of a job, reached through its queue.

    A call that a strategy makes survives a kill of the server: the method of the strategy that was
    under way is called again, and its calls find the answers that had come.
    """

    def __init__(self, cid: str, phase_runner: PhaseRunner) -> None:
        """Reach client ``cid`` through ``phase_runner``."""
        super().__init__(cid)
        self._phase_runner = phase_runner

    def get_properties(
        self, ins: GetPropertiesIns, timeout: float | None, group_id: int | None = None
    ) -> GetPropertiesRes:
        """Ask for its properties; raises `ClientFailure` where it has none to give."""
        return cast(GetPropertiesRes, self.ask(ins, timeout, group_id))

    def get_parameters(
        self, ins: GetParametersIns, timeout: float | None, group_id: int | None = None
    ) -> GetParametersRes:
        """Ask for its parameters; raises `ClientFailure` where it has none to give."""
        return cast(GetParametersRes, self.ask(ins, timeout, group_id))

    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None = None) -> FitRes:
        """Have it train; raises `ClientFailure` where nothing comes of it."""
        return cast(FitRes, self.ask(ins, timeout, group_id))

    def evaluate(
        self, ins: EvaluateIns, timeout: float | None, group_id: int | None = None
    ) -> EvaluateRes:
        """Have it evaluate; raises `ClientFailure` where nothing comes of it."""
        return cast(EvaluateRes, self.ask(ins, timeout, group_id))

    def reconnect(
        self, ins: ReconnectIns, timeout: float | None, group_id: int | None = None
    ) -> DisconnectRes:
        """Have it leave, and come back after ``ins.seconds`` where that is given."""
        return cast(DisconnectRes, self.ask(ins, timeout, group_id))

    def ask(self, ins: Ins, timeout: float | None, group_id: int | None = None) -> Any:
        """Ask it with a message of any kind; raises `ClientFailure` where nothing comes of it."""
        request = Request(kind_of(ins).phase, group_id or 0, [Ask(self.cid, ins)], timeout)
        result = self._phase_runner.run_direct(request, group_id)
        if result.replies:
            return result.replies[self.cid]
        failure = result.failures[0]
        if isinstance(failure, ClientFailure):
            raise failure
        return failure[1]
