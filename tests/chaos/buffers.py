"""What must hold after a disturbed run without rounds.

There is no undisturbed run with the same arrivals to compare with. So the model must be, bit for
bit, what a replay makes of the recorded buffers; and nothing may be lost, counted or trained twice.
"""

from __future__ import annotations

from collections import Counter

from flmq.common.errors import FlmqError
from flmq.common.phase import Phase
from flmq.journal import Journal
from flmq.journal.records import RoundRow
from flmq.observe.past_rounds import buffer_of
from flmq.server.lifecycle.replay import replay
from flmq.wire import refer
from tests.chaos import program
from tests.chaos.run import JOB, Run

__all__ = ["check_buffers"]


def check_buffers(run: Run) -> list[str]:
    """Everything that is not as promised, but for the clients' own account."""
    journal = Journal.open(run.runs_dir / JOB, create=False)
    try:
        rows = [row for row in journal.rounds() if row.server_round > 0]
        problems = [] if journal.finished is not None else ["the job is not called finished"]
        problems += _check_steps(run, rows)
        problems += _check_asks(journal, rows)
        problems += _check_replay(run, journal)
    finally:
        journal.close()
    return problems


def _check_steps(run: Run, rows: list[RoundRow]) -> list[str]:
    numbers = [row.server_round for row in rows if row.done]
    problems = []
    if numbers != list(range(1, run.schedule.rounds + 1)):
        problems.append(f"the journal has steps {numbers}")
    for row in rows:
        updates = buffer_of(row)
        if row.done and len(updates) != program.BUFFER_SIZE:
            problems.append(f"step {row.server_round} has {len(updates)} updates")
        problems += [
            f"step {row.server_round}: {each} is not stale by that"
            for each in updates
            if each.staleness != row.server_round - each.server_round
        ]
    return problems


def _check_asks(journal: Journal, rows: list[RoundRow]) -> list[str]:
    """Each ask that was answered well is in one buffer, once."""
    counted = Counter(
        (each.client_id, each.server_round, each.call) for row in rows for each in buffer_of(row)
    )
    problems = [f"{ask} is in buffers {n} times" for ask, n in counted.items() if n > 1]
    taken = set()
    for row in rows:
        for key in journal.phases.closed_calls(row.server_round, Phase.FIT):
            closed = journal.phases.closed(key)
            assert closed is not None
            taken |= {(client, key.server_round, key.call) for client in closed.accepted}
    if taken != set(counted):
        problems.append(f"taken, or in a buffer, but not both: {taken ^ set(counted)}")
    return problems


def _check_replay(run: Run, journal: Journal) -> list[str]:
    schedule = run.schedule
    parts = program.parts(schedule.variant, schedule.clients, schedule.rounds)
    assert parts.strategy is not None
    try:
        steps = list(replay(journal, parts.strategy))
    except FlmqError as error:
        return [f"it cannot be replayed: {error}"]
    problems = [
        f"the replay of step {each.server_round} DIFFERS" for each in steps if not each.same
    ]
    last = journal.last_checkpoint()
    assert last is not None
    if len(steps) != schedule.rounds or steps[-1].replayed != refer(last.parameters).digest:
        problems.append(f"{len(steps)} steps were replayed, and not to the final model")
    return problems
