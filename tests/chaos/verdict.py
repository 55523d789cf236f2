"""What must hold after a disturbed run: the promise of the first page, line by line."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from flmq.common import ndarrays_to_parameters
from flmq.common.phase import Phase
from flmq.journal import Journal
from flmq.journal.records import PhaseRow, RoundRow
from flmq.journal.state import encode_state
from flmq.round import Outcome
from flmq.server.options import RunOptions
from flmq.simulation.app import simulate
from flmq.simulation.hands import Hands
from flmq.transport import DEAD
from tests.chaos import program
from tests.chaos.buffers import check_buffers
from tests.chaos.program import Variant
from tests.chaos.run import JOB, SEED, Run
from tests.chaos.schedule import Kind, client_names

__all__ = ["Result", "check", "undisturbed"]

_PHASES = (Phase.FIT, Phase.EVALUATE)


@dataclass(frozen=True, slots=True)
class Result:
    """What a job came to, bit for bit."""

    model: str
    """Digest of the parameters."""
    history: str
    state: str
    """The strategy's, after the last round."""


@cache
def undisturbed(variant: Variant, clients: int, rounds: int) -> Result:
    """The result of the same job left in peace, in one process and without a broker."""
    parts = program.parts(variant, clients, rounds)
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(job=JOB, seed=SEED, runs_dir=Path(folder))
        everybody: Mapping[str, Any] = {name: {} for name in client_names(clients)}
        simulate(program.client, everybody, parts, options, hands=Hands(1), keep_clients=False)
        return result_of(Path(folder) / JOB)


def result_of(folder: Path) -> Result:
    """The result in the folder of a run that is finished."""
    journal = Journal.open(folder, create=False)
    try:
        last = journal.last_checkpoint()
        assert last is not None
        return Result(
            _digest(last.parameters.tensors),
            json.dumps(last.history, sort_keys=True),
            hashlib.sha256(encode_state(last.state)).hexdigest(),
        )
    finally:
        journal.close()


def check(run: Run) -> list[str]:
    """Everything that is not as promised; empty: nothing."""
    problems = list(run.troubles)
    if not run.ended:
        return problems or ["the job did not end"]
    if run.schedule.variant is Variant.BUFFERED:
        problems += check_buffers(run)
        problems += _check_saved(run, result_of(run.runs_dir / JOB).model)
    else:
        problems += _check_bits(run)
        problems += _check_counts(run)
        problems += _check_all_done(run)
    problems += _check_trainings(run)
    problems += _check_leftovers(run)
    return problems


def _check_bits(run: Run) -> list[str]:
    schedule = run.schedule
    expected = undisturbed(schedule.variant, schedule.clients, schedule.rounds)
    found = result_of(run.runs_dir / JOB)
    problems = [
        f"{name} differs: {getattr(found, name)[:2000]} is not {getattr(expected, name)[:2000]}"
        for name in ("model", "history", "state")
        if getattr(found, name) != getattr(expected, name)
    ]
    return problems + _check_saved(run, expected.model)


def _check_saved(run: Run, model: str) -> list[str]:
    with np.load(run.runs_dir / JOB / "model.npz") as file:
        saved = ndarrays_to_parameters([file[name] for name in file.files])
    return [] if _digest(saved.tensors) == model else ["model.npz is another model"]


def _check_counts(run: Run) -> list[str]:
    """Each round has one closed phase of each kind, with one accepted reply of each client."""
    journal = Journal.open(run.runs_dir / JOB, create=False)
    try:
        rounds, finished = journal.rounds(), journal.finished
    finally:
        journal.close()
    problems = [] if finished is not None else ["the journal does not call the job finished"]
    numbers = [row.server_round for row in rounds if row.server_round > 0]
    if numbers != list(range(1, run.schedule.rounds + 1)):
        problems.append(f"the journal has rounds {numbers}")
    for row in rounds:
        if row.server_round > 0:
            problems += _check_round(run, row)
    return problems


def _check_round(run: Run, row: RoundRow) -> list[str]:
    where = f"round {row.server_round}"
    problems = [] if row.done else [f"{where} has no checkpoint"]
    if [phase.phase for phase in row.phases] != list(_PHASES):
        problems.append(f"{where} has phases {[phase.phase.value for phase in row.phases]}")
    for phase in row.phases:
        problems += _check_phase(run, f"{where}, {phase.phase.value}", phase)
    return problems


def _check_phase(run: Run, where: str, row: PhaseRow) -> list[str]:
    asked = run.schedule.variant.asked(run.schedule.clients)
    words = Counter(outcome.outcome for outcome in row.outcomes)
    clients = {outcome.client_id for outcome in row.outcomes}
    problems = []
    if row.open or row.call != 0:
        problems.append(f"{where} is open, or was asked {row.call + 1} times")
    if row.asked != asked or len(clients) != asked or words != {Outcome.ACCEPTED: asked}:
        problems.append(f"{where}: {row.asked} asked, {len(clients)} answered: {dict(words)}")
    late = [each for each in row.late if each.outcome is not Outcome.DUPLICATE]
    if late:
        problems.append(f"{where} has late replies: {late}")
    return problems


def _check_trainings(run: Run) -> list[str]:
    """Nothing is trained twice but what a kill of its client cut."""
    begun = run.begun()
    by_process = Counter(begun)
    problems = [
        f"{training} was begun {count} times by one process"
        for (training, _), count in by_process.items()
        if count > 1
    ]
    times = Counter(training for training, _ in begun)
    kills: Counter[str] = Counter()
    for training, count in times.items():
        kills[training.client] += count - 1
    problems += [
        f"{client} repeated {again} trainings in {run.lives[client]} lives"
        for client, again in kills.items()
        if again > run.lives[client] - 1
    ]
    # By its number an ask of a run without rounds is another in the diary than in the spool.
    if run.schedule.variant not in (Variant.DISKLESS, Variant.BUFFERED):
        problems += [
            f"{training} was in the spool, and begun again"
            for training, count in run.finished.items()
            if times[training] > count
        ]
    return problems


def _check_all_done(run: Run) -> list[str]:
    expected = 2 * run.schedule.rounds * run.schedule.variant.asked(run.schedule.clients)
    done = {training for training, _ in run.done()}
    if len(done) == expected:
        return []
    return [f"{len(done)} different trainings were done, not {expected}"]


def _check_leftovers(run: Run) -> list[str]:
    problems = [f"processes are left: {run.strays}"] if run.strays else []
    for queue, depth in run.depths.items():
        # What was hostile lies there, for a person; some of it twice, where an ack was lost.
        if queue == DEAD and depth <= 2 * run.faults[Kind.HOSTILE]:
            continue
        if depth:
            problems.append(f"{queue} holds {depth} messages")
        if queue.endswith(f".{JOB}"):
            problems.append(f"{queue} is left")
    problems += [f"{path.relative_to(run.folder)} is left" for path in _leftover_files(run)]
    return problems


def _leftover_files(run: Run) -> list[Path]:
    folder = run.runs_dir / JOB
    # With its queue a client may lose the word that its reply came, and that the job is over. It
    # finds out when it starts again, by the reply queue that is no more.
    deaf = {fault.client for fault in run.schedule.faults if fault.kind is Kind.DELETE_QUEUE}
    return [
        *(path for path in run.spooled() if path.parts[-3] not in deaf),
        *folder.glob("**/*.tmp"),
        *folder.glob("spool/*"),
        *(() if run.schedule.variant is Variant.BUFFERED else folder.glob("replies/*")),
    ]


def _digest(tensors: list[bytes]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(len(tensor).to_bytes(8, "big"))
        digest.update(tensor)
    return digest.hexdigest()
