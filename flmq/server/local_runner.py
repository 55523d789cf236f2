"""Call clients that are objects of this process: one call each, in threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from flmq.common.errors import InvalidReturnValue
from flmq.common.phase import Phase
from flmq.server.asks.phase_in_flight import Ask, PhaseInFlight, PhaseResult, Request, Taken
from flmq.server.client_proxy import ClientProxy
from flmq.wire import FailureKind, Ins, Reply, Res
from flmq.wire.failures import failure_of
from flmq.wire.kinds import kind_of

__all__ = ["LocalRunner"]


class LocalRunner:
    """Call the proxies' methods and wait for all of them; deadlines are up to the proxies."""

    def __init__(self, clients: Sequence[ClientProxy], max_workers: int | None) -> None:
        """Call ``clients``, ``max_workers`` at a time."""
        self._clients = {client.cid: client for client in clients}
        self._max_workers = max_workers

    def gather(self, request: Request) -> PhaseResult:
        """Call them all; the timeout, in seconds, is passed to each call."""
        phase = request.phase
        gather = PhaseInFlight.create(request, label=phase.value, now=time.monotonic())
        gather.start()
        lock = threading.Lock()
        with ThreadPoolExecutor(self._max_workers) as pool:
            calls = deque(
                pool.submit(self._call, phase, request.server_round, ask, request.timeout)
                for ask in request.asks
            )
            while calls:
                reply = calls.popleft().result()  # freed as soon as it is aggregated
                taken = Taken(reply, 0, time.monotonic())
                gather.take(gather.judge(reply), taken)
                gather.absorb(taken, lock)
        return gather.result()

    def _call(self, phase: Phase, server_round: int, ask: Ask, timeout: float | None) -> Reply:
        started = time.monotonic()
        res: Res
        try:
            proxy = self._clients[ask.client_id]
            res = _checked(proxy.ask(ask.ins, timeout, server_round), ask.ins)
        except Exception as error:
            res = failure_of(FailureKind.EXCEPTION, error)
        return Reply(
            task_id="",
            job="",
            server_round=server_round,
            phase=phase,
            client_id=ask.client_id,
            epoch=0,
            nonce=b"",
            seconds=time.monotonic() - started,
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
