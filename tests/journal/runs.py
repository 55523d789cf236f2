"""A run to write into a journal, and what a journal says of itself, to compare."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flmq.common import Parameters, Scalar, ndarrays_to_parameters
from flmq.common.errors import StoredDataError
from flmq.common.phase import Phase
from flmq.journal import (
    ClosedPhase,
    Contribution,
    JobIdentity,
    Journal,
    PhaseKey,
    Plan,
    PlannedAsk,
    encode_state,
)
from flmq.round import Outcome, Policy, TaskOutcome
from flmq.wire import BlobRef, refer

IDENTITY = JobIdentity("digits", "0123456789abcdef", bytes(range(32)), 2**70 + 1)
FINGERPRINT = {"flmq": "1.0", "strategy": "FedAvg"}
ABOUT: dict[str, Scalar] = {"clients": 10, "partition": "iid", "alpha": 0.5}


def begun(folder: Path) -> Journal:
    """A journal that has begun and is in charge."""
    journal = Journal.open(folder)
    journal.begin(IDENTITY, FINGERPRINT, ABOUT)
    journal.take_charge()
    return journal


def model(number: int, size: int = 100) -> Parameters:
    """A model of its own for each number."""
    return ndarrays_to_parameters([np.full(size, number, np.float32), np.arange(3)])


def reply_of(client_id: str, server_round: int) -> Parameters:
    """What a client trains; another one for each client and round."""
    number = server_round * 1000 + sum(client_id.encode())
    return ndarrays_to_parameters([np.full(500, number, np.float32)])


def fit(server_round: int, call: int = 0) -> PhaseKey:
    return PhaseKey(server_round, Phase.FIT, call)


def task_id(client_id: str, server_round: int = 1) -> str:
    return f"{client_id}-{server_round}"


def plan(
    clients: Sequence[str],
    server_round: int = 1,
    digest: str | None = None,
    **state: Any,
) -> Plan:
    """Ask ``clients``, each with a task of its own."""
    asks = tuple(
        PlannedAsk(c, task_id(c, server_round), f"task for {c}".encode(), digest) for c in clients
    )
    return Plan(asks, 60.0, Policy(1, 2), state)


def answer(client_id: str, server_round: int = 1, **changes: Any) -> Contribution:
    """A small reply, accepted unless told otherwise."""
    values: dict[str, Any] = {
        "client_id": client_id,
        "task_id": task_id(client_id, server_round),
        "kind": Outcome.ACCEPTED,
        "reply": f"reply of {client_id}".encode(),
        "size": 17,
    }
    return Contribution(**(values | changes))


def closing(*accepted: str, silent: Sequence[str] = ()) -> ClosedPhase:
    outcomes = [TaskOutcome(c, Outcome.ACCEPTED) for c in accepted]
    outcomes += [TaskOutcome(c, Outcome.SILENT, "deadline") for c in silent]
    return ClosedPhase("all answered", accepted, tuple(outcomes), 1.5, 100, 200)


def upload(journal: Journal, parameters: Parameters, name: str = "upload") -> tuple[Path, BlobRef]:
    """A reply's parameters, in the spool as they come."""
    path = journal.spool_folder / name
    path.write_bytes(b"".join(parameters.tensors))
    return path, refer(parameters)


def play_round(journal: Journal, server_round: int, clients: Sequence[str] = ("a", "b")) -> str:
    """A whole round, with its model named by the plan, a reply on disk and one in the record."""
    key = fit(server_round)
    ref = journal.put_parameters(model(server_round - 1))
    journal.phases.open(key, plan(clients, server_round, ref.digest, momentum=np.ones(9)))
    for number, client in enumerate(clients):
        reply = answer(client, server_round)
        if number == 0:
            path, blob = upload(journal, model(1000 + server_round))
            journal.adopt_reply(reply.task_id, path, blob)
            reply = answer(client, server_round, blob=blob)
        journal.phases.contribute(key, reply)
    journal.phases.close(key, closing(*clients))
    return end_round(journal, server_round)


def end_round(journal: Journal, server_round: int, loss: float | None = None) -> str:
    history = {"losses_centralized": [[server_round, 0.1 + server_round]]}
    state: dict[str, Any] = {
        "momentum": np.full(1000, server_round, np.float64),
        "still": np.arange(1000.0),
        "step": server_round,
    }
    loss = 1.0 / (1 + server_round) if loss is None else loss
    summary: dict[str, Any] = {"loss": loss, "metrics": {"accuracy": 1.0 - loss}, "seconds": 2.0}
    return journal.checkpoint(server_round, model(server_round), history, state, summary)


def told(journal: Journal, *, older: bool = False) -> bytes:
    """All that a journal says, to the last bit; what it must say again after a crash.

    ``older``: all that one of the first format says.

    Raises:
        StoredDataError: it cannot say it any more.
    """
    phases = []
    for row in journal.rounds():
        for phase in row.phases:
            key = PhaseKey(row.server_round, phase.phase, phase.call)
            if older:
                phase = replace(phase, closed_unix_ms=None, timeout=None)
            phases.append([repr(row.summary), repr(phase), _record(journal, key)])
    last = journal.last_checkpoint()
    checkpoint: list[Any] = []
    if last is not None:
        model_bytes = [bytes(tensor) for tensor in last.parameters.tensors]
        checkpoint = [last.server_round, last.history, last.state, model_bytes]
    return encode_state(
        {
            "identity": repr(journal.identity),
            "fingerprint": journal.fingerprint(),
            "about": journal.about,
            "finished": journal.finished,
            "phases": phases,
            "checkpoint": checkpoint,
            "kept": [info.digest for info in journal.checkpoints()],
        }
    )


def _record(journal: Journal, key: PhaseKey) -> list[Any] | None:
    try:
        record = journal.phases.find(key)
    except StoredDataError as error:
        if type(error).__name__ != "NotKept":
            raise
        return None
    assert record is not None
    models = [journal.parameters(ask.model) for ask in record.plan.asks if ask.model is not None]
    replies = [journal.reply_parameters(c) for c in record.contributions]
    return [
        repr(record.plan.asks),
        dict(record.plan.state),
        repr((record.elapsed, record.contributions, record.closed)),
        [list(map(bytes, p.tensors)) for p in (*models, *replies) if p is not None],
    ]


def without_parts(database: sqlite3.Connection) -> None:
    """Make a journal one that knew nothing of what each client did, as those before format 5."""
    database.execute("DROP TABLE parts")
    for table, column in (("phases", "head"), ("contributions", "course"), ("late", "part")):
        database.execute(f"ALTER TABLE {table} DROP COLUMN {column}")


def without_sums(database: sqlite3.Connection) -> None:
    """Take away what format 4 brought: partial sums."""
    without_parts(database)
    database.execute("ALTER TABLE contributions DROP COLUMN order_id")
    database.execute("DROP TABLE sums")


def names(folder: Path) -> set[str]:
    """Files in a folder."""
    return {path.name for path in folder.iterdir()}


def reopened(journal: Journal) -> Journal:
    """The run as the next server of its job finds it."""
    journal.close()
    again = Journal.open(journal.folder)
    again.take_charge()
    return again
