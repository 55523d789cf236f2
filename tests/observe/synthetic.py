"""A made-up run: ten rounds, two clients killed in the fourth, one failure, one late reply."""

from __future__ import annotations

from collections.abc import Iterator

from flmq.observe.events import (
    ClientOutcome,
    ClientPresence,
    ConnectionChanged,
    Outcome,
    Phase,
    PhaseClosed,
    PhaseOpened,
    RoundClosed,
    RoundCounts,
    RunEnded,
    RunEvent,
    RunStarted,
)
from flmq.observe.record import killed_note

JOB = "digits-calm-otter"
ROUNDS = 10
KILLED_IN = 4
FAILED_IN = 7


def client_ids(num_clients: int) -> list[str]:
    return [f"client-{number:02}" for number in range(num_clients)]


def whole_run(num_clients: int = 10) -> Iterator[RunEvent]:
    """All events of the run, in order."""
    ids = client_ids(num_clients)
    yield RunStarted(JOB, ROUNDS, "FedAvg", "amqp://flmq@127.0.0.1:35673/flmq")
    for online, client_id in enumerate(ids, 1):
        yield ClientPresence(client_id, "online", "hello", online)
    for server_round in range(1, ROUNDS + 1):
        yield from one_round(server_round, ids)
    yield RunEnded(JOB, ROUNDS, 9.3, None, 0.307, {"accuracy": 0.942})


def one_round(server_round: int, ids: list[str]) -> Iterator[RunEvent]:
    killed = set(ids[2:4]) if server_round >= KILLED_IN else set()
    yield PhaseOpened(server_round, Phase.FIT, tuple(ids), 20.0)
    if server_round == KILLED_IN:
        yield killed_note(killed, server_round)
        for client_id in sorted(killed):
            yield ClientPresence(client_id, "gone", "no sign of life for 15 s", len(ids) - 2)
        yield ConnectionChanged("replies", "lost", "connection reset by peer")
        yield ConnectionChanged("replies", "connected", "after 1.3 s")
    failed = {ids[1]} if server_round == FAILED_IN else set()
    for client_id in ids:
        yield outcome(server_round, client_id, killed, failed)
    if server_round == 8:
        yield ClientOutcome(7, Phase.FIT, ids[0], Outcome.LATE, "2.1 s after the round closed")
    accepted = len(ids) - len(killed) - len(failed)
    counts = RoundCounts(asked=len(ids), accepted=accepted, failed=len(failed), silent=len(killed))
    yield PhaseClosed(server_round, Phase.FIT, counts, 0.4, 27_000, 26_000, "deadline")
    yield RoundClosed(
        server_round,
        ROUNDS,
        counts,
        RoundCounts(),
        1.9 * 0.75**server_round + 0.2,
        {"accuracy": 0.95 - 0.25 * 0.6**server_round},
        0.9,
        27_000,
        26_000,
    )


def outcome(server_round: int, client_id: str, killed: set[str], failed: set[str]) -> ClientOutcome:
    if client_id in killed:
        return ClientOutcome(
            server_round, Phase.FIT, client_id, Outcome.SILENT, "no reply within 20 s"
        )
    if client_id in failed:
        reason, detail = "ValueError: batch of 0 images", "Traceback\nValueError: batch of 0 images"
        return ClientOutcome(
            server_round, Phase.FIT, client_id, Outcome.FAILED, reason, 0.2, detail=detail
        )
    return ClientOutcome(server_round, Phase.FIT, client_id, Outcome.ACCEPTED, "", 0.2, 143, 2700)
