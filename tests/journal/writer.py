"""A process that writes a run into its journal and says what is recorded, for tests that kill it.

``python -m tests.journal.writer FOLDER`` goes on with the run until it is killed; with ``--steps``
it makes one contribution for each line on its standard input.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flmq.journal import Fenced, Journal, PhaseRecord
from tests.journal.runs import (
    answer,
    begun,
    closing,
    end_round,
    fit,
    model,
    plan,
    reply_of,
    upload,
)

CLIENTS = tuple(f"client-{i}" for i in range(6))


def say(*words: object) -> None:
    """One line, at once."""
    print(*words, flush=True)


def resumed(folder: Path) -> Journal:
    """In charge of the run, begun if need be."""
    journal = Journal.open(folder)
    if journal.identity is None:
        journal.close()
        return begun(folder)
    journal.take_charge()
    return journal


def play(journal: Journal, server_round: int) -> None:
    """A round, from wherever it is."""
    key = fit(server_round)
    record = journal.phases.find(key)
    if record is None:
        digest = journal.put_parameters(model(server_round - 1)).digest
        journal.phases.open(key, plan(CLIENTS, server_round, digest, step=server_round))
        say("plan", server_round)
    for client in set(CLIENTS) - answered(record):
        path, ref = upload(journal, reply_of(client, server_round), client)
        journal.adopt_reply(f"{client}-{server_round}", path, ref)
        journal.phases.contribute(key, answer(client, server_round, blob=ref))
        say("reply", server_round, client)
    journal.phases.close(key, closing(*sorted(CLIENTS)))
    say("closed", server_round)
    end_round(journal, server_round)
    say("done", server_round)


def answered(record: PhaseRecord | None) -> set[str]:
    """Whose reply is in."""
    return set() if record is None else {c.client_id for c in record.contributions}


def step(journal: Journal) -> None:
    """Make a contribution for each line that comes."""
    journal.phases.open(fit(1), plan(CLIENTS))
    say("ready")
    for client, _ in zip(CLIENTS, sys.stdin, strict=False):
        try:
            journal.phases.contribute(fit(1), answer(client))
            say("reply", client)
        except Fenced as error:
            say("fenced", error)


def main() -> None:
    """Run."""
    journal = resumed(Path(sys.argv[1]))
    if "--steps" in sys.argv:
        step(journal)
        return
    say("ready")
    while True:
        play(journal, journal.rounds_done + 1)


if __name__ == "__main__":
    main()
