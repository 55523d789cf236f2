"""Asking clients that are objects of this process: one call each, in threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from flmq.common.errors import InvalidReturnValue
from flmq.round import JobState, PhaseKey
from flmq.round.job_events import PhaseOpened
from flmq.server.client_proxy import ClientProxy
from flmq.server.job.phase_in_flight import PhaseInFlight, named
from flmq.server.job.request import Ask, PhaseResult, Request
from flmq.server.replies.reply_edges import ReplyEdges
from flmq.server.replies.reply_loop import ReplyLoop
from flmq.wire import FailureKind, Ins, Reply, Res
from flmq.wire.failures import failure_of
from flmq.wire.kinds import kind_of

__all__ = ["LocalRunner"]


class LocalRunner:
    """Calls proxies' methods and waits for all of them; a deadline is the proxies' own affair."""

    def __init__(
        self,
        clients: Sequence[ClientProxy],
        max_workers: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call ``clients``, ``max_workers`` at a time; ``clock`` gives seconds."""
        self._clock = clock
        self._clients = {client.cid: client for client in clients}
        self._max_workers = max_workers

    def run_phase(self, request: Request) -> PhaseResult:
        """Call them all; the timeout, in seconds, is passed to each call."""
        key, asks = PhaseKey(request.server_round, request.phase), named(request.asks)
        loop = ReplyLoop(JobState(), ReplyEdges(lambda event: None, self._clock))
        phase = PhaseInFlight.begin(key, request, label=request.phase.value, now=self._clock())
        opened = PhaseOpened(key, {name: name for name in asks}, request.policy, phase.label)
        loop.open(phase, lambda loop: [opened])
        with ThreadPoolExecutor(self._max_workers) as pool:
            calls = deque(pool.submit(self._call, request, name, ask) for name, ask in asks.items())
            while calls:
                reply = calls.popleft().result()  # freed as soon as it is aggregated
                loop.take(reply, 0, None)
                loop.perform()
        return phase.result()

    def begin(self, server_round: int, step: str) -> None:
        """Do nothing: direct calls are not recorded here."""

    def run_direct(self, request: Request, group_id: int | None) -> PhaseResult:
        """Call one client."""
        return self.run_phase(request)

    def _call(self, request: Request, task_id: str, ask: Ask) -> Reply:
        started = self._clock()
        res: Res
        try:
            proxy = self._clients[ask.client_id]
            answer = proxy.ask(ask.ins, request.timeout, request.server_round)
            res = _checked(answer, ask.ins)
        except Exception as error:
            res = failure_of(FailureKind.EXCEPTION, error)
        return Reply(
            task_id=task_id,
            job="",
            server_round=request.server_round,
            phase=request.phase,
            client_id=ask.client_id,
            epoch=0,
            nonce=b"",
            seconds=self._clock() - started,
            res=res,
        )


def _checked(res: Res, ins: Ins) -> Res:
    """Return ``res`` if it is of the type that the proxy's method should return."""
    kind = kind_of(ins)
    if not isinstance(res, kind.res):
        raise InvalidReturnValue(
            f"the proxy's {kind.call} returned a {type(res).__name__}, not a {kind.res.__name__}"
        )
    return res
