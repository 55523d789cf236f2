"""The phases of a round as the server's loop runs them: which clients to ask, and the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flmq.common.phase import Phase
from flmq.common.typing import FitRes
from flmq.round import Outcome, Policy, TaskOutcome
from flmq.server.asks.failure_summary import why
from flmq.server.asks.queue_client_proxy import PhaseRunner, QueueClientProxy
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.criteria.failures import FailureLog, failed_clients
from flmq.server.job.client_failure import ClientFailure
from flmq.server.job.request import Ask, PhaseResult, Request
from flmq.server.local_runner import LocalRunner
from flmq.server.resumption.checkpointer import Checkpointer
from flmq.server.resumption.job_journal import Planned
from flmq.server.rhythm.deadlines import RoundPolicy, TimeoutByRound, timeout_of
from flmq.server.strategy import validation as returned
from flmq.server.strategy.combine import Combine
from flmq.server.strategy.late import LateReplies, merged
from flmq.server.strategy.regional import why_whole
from flmq.server.strategy.strategy import Strategy
from flmq.server.strategy.wrapping import layers
from flmq.wire import Ins, Res

__all__ = ["Phases"]


class Phases:
    """Run phases over the clients of a ``client_manager``: in this process, until `attach`."""

    def __init__(self, client_manager: ClientManager) -> None:
        """Call the proxies of ``client_manager`` directly."""
        self._client_manager = client_manager
        self._phase_runner: PhaseRunner | None = None
        self._checkpointer: Checkpointer | None = None
        self._seed = 0
        self._policy = Policy(min_results=0)
        self._timeouts: TimeoutByRound | None = None
        self._needed = 0
        """Results that the last phase needed."""
        self._plans: dict[tuple[Phase, int], Planned] = {}

    def attach(
        self,
        phase_runner: PhaseRunner,
        *,
        seed: int,
        policy: Policy,
        checkpointer: Checkpointer | None,
        timeouts: TimeoutByRound | None = None,
    ) -> None:
        """Ask through ``phase_runner`` from now on; otherwise as in `Server.attach`."""
        self._phase_runner = phase_runner
        self._checkpointer = checkpointer
        self._seed = seed
        self._policy = policy
        self._timeouts = timeouts

    def timeout(self, server_round: int, timeout: float | None) -> float | None:
        """Return the seconds that a phase of a round has: ``timeout``, unless rounds differ."""
        return timeout if self._timeouts is None else timeout_of(self._timeouts, server_round)

    @property
    def runner(self) -> PhaseRunner | None:
        """What asks clients; None before `attach`."""
        return self._phase_runner

    def begin(self, server_round: int, phase: Phase) -> None:
        """Tell the client manager for which phase it chooses clients, if it supports that."""
        begin = getattr(self._client_manager, "begin", None)
        if begin is not None:
            begin(self._seed, server_round, phase.value)
        self.step(server_round, f"configure {phase.value}")

    def step(self, server_round: int, name: str) -> None:
        """Name the strategy's next step, which becomes part of the identity of its direct calls."""
        if self._phase_runner is not None:
            self._phase_runner.begin(server_round, name)

    def planned(
        self, strategy: Strategy, phase: Phase, server_round: int
    ) -> list[tuple[ClientProxy, Any]] | None:
        """Return whom an earlier server of this job asked; None if it had not reached the phase.

        ``strategy`` gets the state that it had when it chose them.
        """
        planned = (
            None if self._checkpointer is None else self._checkpointer.planned(phase, server_round)
        )
        if planned is None:
            return None
        self._plans = {(phase, server_round): planned}
        strategy.load_state_dict(planned.state)
        clients = self._proxies(ask.client_id for ask in planned.asks)
        return [(client, ask.ins) for client, ask in zip(clients, planned.asks, strict=True)]

    def run(
        self,
        strategy: Strategy,
        phase: Phase,
        server_round: int,
        instructions: Sequence[tuple[ClientProxy, Ins]],
        timeout: float | None,
        check: Callable[[Ins, Res], str | None],
        *,
        combine: Combine | None = None,
        max_workers: int | None = None,
    ) -> PhaseResult:
        """Ask clients, and wait until the phase closes; it has ``timeout`` seconds.

        Replies that pass ``check`` go to ``combine``, if given, as they arrive. ``max_workers``
        bounds the threads that call proxies directly.
        """
        phase_runner = self._phase_runner
        if phase_runner is None:
            phase_runner = LocalRunner([client for client, _ in instructions], max_workers)
        rounds = phase in (Phase.FIT, Phase.EVALUATE)
        policy = self._round_policy(strategy, phase, server_round, len(instructions), timeout)
        self._needed = policy.min_results
        checkpointer = self._checkpointer if rounds or phase is Phase.GET_PARAMETERS else None
        result = phase_runner.run_phase(
            Request(
                phase,
                server_round,
                [Ask(client.cid, ins) for client, ins in instructions],
                policy.timeout,
                policy=policy.counts,
                check=check,
                sink=combine,
                state=None if checkpointer is None else checkpointer.state(strategy),
                cast=phase is Phase.FIT and strategy.cast is not None,
                hands_over=phase is Phase.FIT and strategy.late_replies is LateReplies.NEXT_ROUND,
                **({"whole_replies": why_whole(strategy, combine)} if phase is Phase.FIT else {}),
            )
        )
        if rounds:
            self.note_failures(server_round, _failed(result))
        return result

    def _round_policy(
        self,
        strategy: Strategy,
        phase: Phase,
        server_round: int,
        asked: int,
        timeout: float | None,
    ) -> RoundPolicy:
        """Return the deadline and the quorum of a phase.

        One that is resumed keeps those of its plan, but for what is a number in the configuration:
        whoever starts the server again may give another.
        """
        if phase not in (Phase.FIT, Phase.EVALUATE):
            return RoundPolicy(self.timeout(server_round, timeout))
        planned = self._plans.pop((phase, server_round), None)
        is_own = type(layers(strategy)[-1]).round_policy is not Strategy.round_policy
        if planned is not None and (is_own or self._timeouts is not None):
            limits = planned.policy
            return RoundPolicy(planned.timeout, limits.min_results, limits.target_results)
        configured = RoundPolicy(
            self.timeout(server_round, timeout),
            self._policy.min_results,
            self._policy.target_results,
        )
        policy = strategy.round_policy(server_round, phase, asked, configured)
        return returned.checked_policy(returned.method_name(strategy, "round_policy"), policy)

    def note_failures(self, server_round: int, client_ids: Iterable[str]) -> None:
        """Tell the client manager who failed in a round, if it keeps a log of that."""
        failures = getattr(self._client_manager, "failures", None)
        if isinstance(failures, FailureLog):
            failures.note(server_round, client_ids)

    def with_late(
        self, results: list[tuple[ClientProxy, FitRes]], result: PhaseResult
    ) -> list[tuple[ClientProxy, FitRes]]:
        """Return a round's own results, and the late ones of earlier rounds that count in it."""
        if not result.late:
            return results
        clients = self._proxies(late.ref.client_id for late in result.late)
        late = [(client, each.res) for client, each in zip(clients, result.late, strict=True)]
        return merged(results, late)

    def why_nobody(self, asked: str) -> str:
        """Return text on why the strategy's method ``asked`` chose no clients."""
        shortfall = getattr(self._client_manager, "shortfall", None)
        return f"nobody was asked: {shortfall or f'{asked} chose no clients'}"

    def too_few(self, result: PhaseResult) -> str:
        """Return text on how many results are missing of those that the policy requires."""
        return (
            f"{result.counts.accepted} results, {self._needed} needed: "
            f"the model stays as it was ({why(result)})"
        )

    def _proxies(self, client_ids: Iterable[str]) -> list[ClientProxy]:
        """Return proxies for these ids, even of clients that are no longer available."""
        here = self._client_manager.all()
        assert self._phase_runner is not None
        return [here.get(each) or QueueClientProxy(each, self._phase_runner) for each in client_ids]


def _failed(result: PhaseResult) -> set[str]:
    """Return the clients that failed in a phase."""
    outcomes = (
        TaskOutcome(each.client_id, each.outcome)
        if isinstance(each, ClientFailure)
        else TaskOutcome(each[0], Outcome.FAILED)
        for each in result.failures
    )
    return failed_clients(outcomes, result.reason)
