"""A writer killed at any moment: what it said was recorded is there, whole, and it goes on."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

from flmq.journal import Journal
from tests.journal.runs import fit, model, reply_of
from tests.journal.writer import CLIENTS

KILLS = 12


def run_and_kill(folder: Path, after: int, chance: random.Random) -> list[list[str]]:
    """Let it say ``after`` lines, kill it a moment later; what it said comes back."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.journal.writer", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    # The delay that a commit takes, and a little more: within it lies every point of its way.
    timer = threading.Timer(chance.uniform(0, 0.02), process.kill)
    said = []
    for line in process.stdout:
        if not line.endswith("\n"):
            break  # it died over this word
        said.append(line.split())
        if len(said) == after:
            timer.start()
    process.stdout.close()
    assert process.wait() == -9, said
    timer.join()
    return said


def look(folder: Path, said: list[list[str]]) -> int:
    """Check all that was said to be recorded; the rounds done come back."""
    journal = Journal.open(folder, create=False)
    try:
        done = journal.rounds_done
        last = journal.last_checkpoint()
        if done:
            assert last is not None
            assert last.parameters == model(done)
            assert last.state["step"] == last.server_round == done
            assert last.state["momentum"].tolist() == [done] * 1000
            assert last.state["still"].tolist() == list(range(1000))
        assert max((int(words[1]) for words in said if words[0] == "done"), default=0) <= done
        record = journal.phases.find(fit(done + 1))
        recorded = {}
        for contribution in () if record is None else record.contributions:
            client = contribution.client_id
            assert journal.reply_parameters(contribution) == reply_of(client, done + 1)
            recorded[client] = contribution
        if record is not None:
            assert [ask.client_id for ask in record.plan.asks] == list(CLIENTS)
            assert journal.parameters(str(record.plan.asks[0].model)) == model(done)
            assert record.plan.state == {"step": done + 1}
        for words in said:
            if words[0] != "ready" and int(words[1]) == done + 1:
                assert record is not None, words
                assert words[0] != "reply" or words[2] in recorded, words
                assert words[0] != "closed" or record.closed is not None, words
        return done
    finally:
        journal.close()


def test_nothing_recorded_is_lost_and_nothing_is_half_there(tmp_path: Path) -> None:
    chance = random.Random(5)
    folder = tmp_path / "job"
    replies = []
    done = 0
    for _ in range(KILLS):
        said = run_and_kill(folder, chance.randrange(1, 20), chance)
        replies += [tuple(words) for words in said if words[0] == "reply"]
        before, done = done, look(folder, said)
        assert done >= before
    assert done >= 4
    # Whoever was recorded was not asked again by the next one.
    assert len(replies) == len(set(replies))
