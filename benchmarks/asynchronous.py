"""What FedBuff gains over waiting for all, in virtual time: the real loop, and a clock of our own.

The loop is that of `AsynchronousServer` and FedBuff's own arithmetic; only its stream of asks is
virtual: an ask is answered when the clock has moved on by the time that its client takes, which is
drawn from a seed. Nothing sleeps. Waiting for all asks as many clients at once, and each round
takes as long as the slowest. What is compared is updates a second.

With n clients whose times are independent and alike, the ratio is E[max of n] / E[one]: for
exponential times the n-th harmonic number, whatever the rate.

Run: ``python -m benchmarks.asynchronous [--updates N] [--seed N]``; some seconds.
"""

from __future__ import annotations

import argparse
import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from flmq.common import Code, FitIns, FitRes, Parameters, Status, ndarrays_to_parameters
from flmq.common.parameter import parameters_to_ndarrays
from flmq.common.phase import Phase
from flmq.observe.events import RoundCounts
from flmq.round import STREAM, PhaseKey
from flmq.server import SimpleClientManager
from flmq.server.asks.queue_client_proxy import QueueClientProxy
from flmq.server.asks.stream import Answer, AskStream
from flmq.server.job.request import PhaseResult
from flmq.server.local_runner import LocalRunner
from flmq.server.strategy import FedBuff
from flmq.server.streams.asynchronous_server import AsynchronousServer
from flmq.wire import Ins

__all__ = ["CASES", "Case", "Figures", "measure"]

_OK = Status(Code.OK, "Success")
_ANSWERED = RoundCounts(asked=1, accepted=1)


@dataclass(frozen=True, slots=True)
class Case:
    """Clients and how long each takes, in seconds of virtual time."""

    name: str
    clients: int
    buffer_size: int
    draw: Callable[[np.random.Generator, int], np.ndarray]
    """Returns so many times."""
    tail: Callable[[float], float]
    """Returns the probability that a time is longer."""

    def expected(self) -> float:
        """Return E[max of all clients] / E[one], by integration of the tails."""
        grid = np.linspace(0.0, 60.0, 60_001)
        beyond = np.array([self.tail(x) for x in grid])
        longest = np.trapezoid(1 - (1 - beyond) ** self.clients, grid)
        return float(longest / np.trapezoid(beyond, grid))


CASES = (
    Case(
        "20 clients, exponential times, K = 20",
        20,
        20,
        lambda rng, count: rng.exponential(size=count),
        lambda x: math.exp(-x),
    ),
    Case(
        "100 clients, half-normal times, K = 10",
        100,
        10,
        lambda rng, count: np.abs(rng.normal(size=count)),
        lambda x: math.erfc(x / math.sqrt(2)),
    ),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a case came to."""

    speedup: float
    """Updates a second of FedBuff over those of waiting for all."""
    expected: float
    staleness: float
    """Mean."""
    microseconds: float
    """Real time of the loop, for an update."""


class VirtualStream(AskStream):
    """Asks that are answered in virtual time."""

    def __init__(self, case: Case, rng: np.random.Generator) -> None:
        """Draw times of ``case`` from ``rng``."""
        self.now = 0.0
        self._case = case
        self._rng = rng
        self._asked = 0
        self._at_work: list[tuple[float, int, str, Ins, int]] = []
        self._busy: set[str] = set()

    @property
    def busy(self) -> frozenset[str]:
        """Return the clients at work."""
        return frozenset(self._busy)

    def ask(self, client_id: str, ins: Ins, server_round: int) -> None:
        """Have a client train for as long as it takes."""
        self._asked += 1
        until = self.now + float(self._case.draw(self._rng, 1)[0])
        heapq.heappush(self._at_work, (until, self._asked, client_id, ins, server_round))
        self._busy.add(client_id)

    def take(self, timeout: float) -> Answer | None:
        """Move the clock on to the next answer, or by ``timeout`` seconds."""
        if not self._at_work or self._at_work[0][0] > self.now + timeout:
            self.now += timeout
            return None
        self.now, number, client_id, ins, server_round = heapq.heappop(self._at_work)
        self._busy.discard(client_id)
        key = PhaseKey(server_round, Phase.FIT, STREAM + number)
        moved = [x + 1 for x in parameters_to_ndarrays(cast(FitIns, ins).parameters)]
        res = FitRes(_OK, ndarrays_to_parameters(moved), 1, {})
        result = PhaseResult({}, [], _ANSWERED, 0.0, 0, 0, "all answered", enough=True)
        return Answer(client_id, server_round, ins, res, None, key, result)


def measure(case: Case, updates: int, seed: int) -> Figures:
    """Run FedBuff for so many updates, and waiting for all likewise."""
    manager = SimpleClientManager(seed=seed)
    for number in range(case.clients):
        manager.register(QueueClientProxy(f"c{number}", LocalRunner([], None)))
    strategy = FedBuff(
        buffer_size=case.buffer_size,
        concurrency=case.clients,
        min_available_clients=case.clients,
        initial_parameters=_model(),
    )
    stream = VirtualStream(case, np.random.default_rng([seed, 1]))
    server = AsynchronousServer(client_manager=manager, strategy=strategy, clock=lambda: stream.now)
    steps = updates // case.buffer_size
    begun = time.perf_counter()
    history, _ = server.fit_over(lambda: stream, steps)
    real = time.perf_counter() - begun
    count = steps * case.buffer_size
    rounds = math.ceil(count / case.clients)
    times = case.draw(np.random.default_rng([seed, 2]), rounds * case.clients)
    waited = float(times.reshape(rounds, case.clients).max(axis=1).sum())
    stale = [cast(float, value) for _, value in history.metrics_distributed_fit["staleness_mean"]]
    return Figures(
        count / stream.now / (rounds * case.clients / waited),
        case.expected(),
        sum(stale) / len(stale),
        real / count * 1e6,
    )


def _model() -> Parameters:
    return ndarrays_to_parameters([np.zeros(1, np.float32)])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asynchronous", description=__doc__)
    parser.add_argument("--updates", type=int, default=40_000, help="a case (default: 40000)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print("| clients | updates a second, FedBuff / waiting for all | E[max] / E[one] | staleness |")
    print("|---|---|---|---|")
    for case in CASES:
        got = measure(case, options.updates, options.seed)
        print(f"| {case.name} | {got.speedup:.2f} | {got.expected:.3f} | {got.staleness:.1f} |")


if __name__ == "__main__":
    main()
