"""Workers killed at every step of theirs: nothing is lost, only what was unfinished repeated."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import flmq.client
from flmq.common.crashpoints import CRASH_AT
from flmq.observe.events import Outcome, RoundCounts
from flmq.testing import fast_retries
from tests.dataplane import diary
from tests.dataplane.looks import mean_of
from tests.end_to_end.federation import Federation, fed_avg, initial
from tests.processes import Commands
from tests.transport.rigs import RabbitMQRig, eventually

NUMBERS = 800_000
"""Four chunks each way."""
SLOW = 60.0
"""Seconds for what a busy machine does in three: starting Python processes."""
TAKES_OVER_WITHIN = 10.0

POINTS = {
    "received": "worker.task_received",
    "spooled": "worker.task_spooled",
    "acked": "worker.task_acked",
    "before": "worker.before_training",
    "trained": "worker.trained",
    "kept": "worker.reply_spooled",
    "announced": "worker.reply_announced",
    "midway": "blob.chunk_published:2",
    "confirmed": "worker.reply_confirmed",
}
"""Client id: where its first life ends."""


class Workers(Commands):
    """``flmq client`` processes over one virtual host, with a server in this process."""

    def __init__(self, url: str, folder: Path) -> None:
        self.diary = folder / "diary"
        self.diary.mkdir()
        super().__init__(url, folder, **{diary.FOLDER: str(self.diary)})

    def start(self, client_id: str, *options: str, crash_at: str = "") -> subprocess.Popen[bytes]:
        """Start a worker with a state folder, which all of its lives share."""
        who = (f"--client-id={client_id}", "--state-dir=state")
        return self.run(
            "client", "tests.dataplane.diary:client", *who, *options, **{CRASH_AT: crash_at}
        )

    def trainings(self, client_id: str) -> list[int]:
        """Ids of the processes that trained for a client, in order."""
        file = self.diary / client_id
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def spooled(self) -> list[str]:
        """What lies in the spools."""
        return [path.name for path in (self.folder / "state").glob("*/spool/*")]


@pytest.fixture
def workers(broker_url: str, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(broker_url, tmp_path)
    yield made
    made.end()


@pytest.fixture
def servers(broker_url: str) -> Iterator[Federation]:
    with fast_retries():
        rig = RabbitMQRig(broker_url)
        made = Federation(rig)
        yield made
        made.close()
        rig.close()


def test_a_kill_at_any_step_loses_nothing_and_repeats_only_what_was_not_kept(
    workers: Workers, servers: Federation
) -> None:
    """One run, one client for each step: each is killed there once, and started again."""
    strategy = fed_avg(len(POINTS), initial_parameters=initial(NUMBERS))
    first = {name: workers.start(name, crash_at=where) for name, where in POINTS.items()}
    server = servers.run(strategy, rounds=2, timeout=None)
    second: dict[str, subprocess.Popen[bytes]] = {}

    def killed_and_started_again() -> bool:
        for name, process in first.items():
            if name not in second and process.poll() is not None:
                assert process.returncode == -signal.SIGKILL, workers.output(process)
                second[name] = workers.start(name, "--once")
        return len(second) == len(first)

    eventually(killed_and_started_again, SLOW)
    server.history(SLOW)
    assert server.model() == mean_of(POINTS, initial(NUMBERS), rounds=2)
    for process in second.values():
        assert process.wait(SLOW) == 0, workers.output(process)
        assert "Traceback" not in workers.output(process)
    assert [round_.fit for round_ in server.watch.rounds()] == [
        RoundCounts(asked=9, accepted=9, duplicate=round_.fit.duplicate)
        for round_ in server.watch.rounds()
    ]
    for name, words in server.watch.words().items():
        assert words.count(Outcome.ACCEPTED) == 2, name
        assert set(words) <= {Outcome.ACCEPTED, Outcome.DUPLICATE}, name
    # Once a round, but where the kill came between the training and its reply's way to the disk.
    for name, where in POINTS.items():
        killed, after = first[name].pid, second[name].pid
        expected = {
            "worker.trained": [killed, after, after],
            "worker.reply_spooled": [killed, after],
            "worker.reply_announced": [killed, after],
            "blob.chunk_published:2": [killed, after],
            "worker.reply_confirmed": [killed, after],
        }
        assert workers.trainings(name) == expected.get(where, [after, after]), name
    assert workers.spooled() == []


def test_every_step_of_a_worker_is_among_them() -> None:
    code = "".join(path.read_text() for path in Path(flmq.client.__file__).parent.rglob("*.py"))
    steps = set(re.findall(r'crash_point\("([^"]+)"\)', code))
    assert steps == {where for where in POINTS.values() if where.startswith("worker.")}


def test_a_standby_takes_over_what_the_first_had_accepted(
    workers: Workers, servers: Federation
) -> None:
    hold = workers.diary / "a.hold"
    hold.touch()
    first = workers.start("a")
    server = servers.run(fed_avg(1, initial_parameters=initial(NUMBERS)), timeout=None)
    eventually(lambda: workers.trainings("a") == [first.pid], SLOW)
    second = workers.start("a", "--once")
    refused = workers.start("a", "--no-standby")
    eventually(lambda: "standing by" in workers.output(second), SLOW)
    assert refused.wait(SLOW) == 2
    assert "client id 'a' is in use by another live process" in workers.output(refused)
    assert "Traceback" not in workers.output(refused)
    first.kill()
    killed = time.monotonic()
    eventually(lambda: workers.trainings("a") == [first.pid, second.pid], SLOW)
    assert time.monotonic() - killed < TAKES_OVER_WITHIN
    hold.unlink()
    assert server.model() == mean_of(["a"], initial(NUMBERS))
    assert second.wait(SLOW) == 0
    assert workers.spooled() == []


def test_a_standby_does_not_do_again_what_the_first_had_done(
    workers: Workers, servers: Federation
) -> None:
    """It has stood by since before; what is settled in the folder they share is settled."""
    first = workers.start("a")
    eventually(lambda: "serves the jobs" in workers.output(first), SLOW)
    second = workers.start("a")
    eventually(lambda: "standing by" in workers.output(second), SLOW)
    servers.run(fed_avg(1, initial_parameters=initial(NUMBERS)), job="one", timeout=None).history()
    eventually(lambda: workers.spooled() == [], SLOW)
    first.kill()
    server = servers.run(fed_avg(1, initial_parameters=initial(NUMBERS)), job="two", timeout=None)
    try:
        server.history(SLOW)
    except TimeoutError:
        pytest.fail(f"{workers.output(second)}\n{server.watch.events}")
    assert workers.trainings("a") == [first.pid, second.pid]
