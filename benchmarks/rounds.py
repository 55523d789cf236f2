"""Rounds of all contestants, side by side: in turns, so that a busy machine is busy for all.

A round is what a person waits for: from publishing the model to having the aggregated one, timed
inside each contestant's server (`benchmarks.contestants`). All contestants of a cell are up at
once and take turns round by round, A B C A B C, each idle while another plays; only where models
fill the memory does one follow the other. The first round of each is a warm-up and not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.cells import Cell, size_name
from benchmarks.contenders import CONTESTANTS, Contestant, NotAvailable
from benchmarks.meters import Traffic, available_memory, traffic
from benchmarks.processes import ContestantFailed, Processes
from benchmarks.results import Outcome, Round
from flmq.broker.find import Broker

__all__ = ["Harness"]

_QUICK_BYTES = 1_000_000
_QUICK_ROUNDS = 15
"""At least so many rounds where the model is small: they cost nothing, and vary."""
_MEMORY_SHARE = 0.9


@dataclass(slots=True)
class _Play:
    """A contestant that takes part in a cell."""

    contestant: Contestant
    processes: Processes
    rounds: list[Round] = field(default_factory=list)
    before: tuple[Traffic | None, Traffic | None] = (None, None)
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Harness:
    """Where and how cells are played."""

    broker: Broker
    rounds: int
    """Of each contestant in each cell, besides the warm-up."""
    logs: Path
    """Folder for what the contestants' processes print."""
    tell: Callable[[str], None]
    """Is told, a line at a time, how it goes."""
    patience: float = 900.0
    """Seconds that a round may take."""

    def play(self, cell: Cell, contestants: Sequence[str]) -> list[Outcome]:
        """Measure each contestant in ``cell``."""
        self.tell(f"{cell}: {', '.join(CONTESTANTS[name].label for name in contestants)}")
        groups = [list(contestants)] if cell.together else [[name] for name in contestants]
        outcomes = [outcome for group in groups for outcome in self._play_group(cell, group)]
        for each in outcomes:
            self.tell(f"  {CONTESTANTS[each.contestant].label}: {_summary(each)}")
        return outcomes

    def _play_group(self, cell: Cell, names: list[str]) -> list[Outcome]:
        count = max(self.rounds, _QUICK_ROUNDS) if cell.model_bytes < _QUICK_BYTES else self.rounds
        outcomes: dict[str, Outcome] = {}
        with ExitStack() as stack:
            plays: list[_Play] = []
            for name in names:
                try:
                    processes = self._start(stack, CONTESTANTS[name], cell, count + 1)
                    plays.append(_Play(CONTESTANTS[name], processes))
                except (ContestantFailed, NotAvailable) as error:
                    outcomes[name] = Outcome(name, cell, failed=str(error))
            for number in range(count + 1):
                for play in plays:
                    self._one_round(play, number, count)
            for play in plays:
                outcomes[play.contestant.name] = self._outcome(play, cell)
        return [outcomes[name] for name in names]

    def _start(
        self, stack: ExitStack, contestant: Contestant, cell: Cell, rounds: int
    ) -> Processes:
        free, needed = available_memory(), contestant.needs(cell)
        if free is not None and needed > _MEMORY_SHARE * free:
            raise NotAvailable(
                f"needs some {size_name(needed // 10**8 * 10**8)} of memory, "
                f"{size_name(free // 10**8 * 10**8)} are free"
            )
        processes = stack.enter_context(
            Processes(
                contestant,
                cell,
                rounds,
                broker_url=self.broker.url,
                broker_pid=None if self.broker.node is None else self.broker.node.pid,
                logs=self.logs,
                patience=self.patience,
            )
        )
        processes.start()
        return processes

    def _one_round(self, play: _Play, number: int, last: int) -> None:
        if play.failed:
            return
        try:
            measured = play.processes.play(more=number < last)
        except ContestantFailed as error:
            play.failed = str(error)
            play.processes.close()
            return
        if number == 0:
            play.before = self._traffic(play)
        else:
            play.rounds.append(measured)

    def _traffic(self, play: _Play) -> tuple[Traffic | None, Traffic | None]:
        if not play.contestant.on_broker:
            return None, None
        processes = play.processes
        return (
            traffic(self.broker, [processes.server_pid]),
            traffic(self.broker, processes.client_pids),
        )

    def _outcome(self, play: _Play, cell: Cell) -> Outcome:
        name = play.contestant.name
        if play.failed:
            return Outcome(name, cell, tuple(play.rounds), failed=play.failed)
        idle, peak, client_peak = play.processes.memory()
        sent = [
            None if a is None or b is None else (b.received - a.received) / len(play.rounds)
            for a, b in zip(play.before, self._traffic(play), strict=True)
        ]
        outcome = Outcome(name, cell, tuple(play.rounds), idle, peak, client_peak)
        return replace(
            outcome, server_sent=sent[0], clients_sent=sent[1], exact=play.processes.exact
        )


def _summary(outcome: Outcome) -> str:
    if outcome.failed:
        return f"no figure: {outcome.failed}"
    each = " ".join(f"{one.seconds:.3g}" for one in outcome.rounds)
    memory = outcome.memory or 0
    return f"{outcome.seconds:.3g} s ({each}), {memory / 1e6:.0f} MB above idle"
