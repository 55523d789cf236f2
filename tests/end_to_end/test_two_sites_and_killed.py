"""Two sites with their aggregators, as processes: the flat run's bits, whoever is killed.

Both sites are on one broker, as the bindings of sites are the same there; brokers of their own are
the business of the tests of sites.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from flmq.common.crashpoints import CRASH_AT
from flmq.journal import Journal
from tests.end_to_end.regional_app import ROUNDS
from tests.processes import environment, start

APP = "tests.end_to_end.regional_app"
PATIENCE = 120.0


@dataclass
class Sites:
    """The processes of a federation of two sites."""

    url: str
    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *command: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a command of flmq."""
        env = {
            **environment(self.url),
            "FLMQ_HEARTBEAT": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            **more,
        }
        output = self.folder / f"{command[0]}-{len(self.running)}.txt"
        process = start([sys.executable, "-m", "flmq", *command], output, self.folder, env)
        self.running.append(process)
        return process

    def aggregator(self, site: str) -> subprocess.Popen[bytes]:
        state = str(self.folder / f"state-{site}")
        arguments = (f"--site={site}", f"--state-dir={state}", "--report-every=0.2")
        return self.start("aggregate", *arguments)

    def clients(self, site: str, ids: str) -> None:
        self.start("client", f"{APP}:client", f"--site={site}", f"--client-ids={ids}")

    def server(self, job: str, *options: str, crash_at: str = "") -> subprocess.Popen[bytes]:
        sites = ("--site=eu", "--site=us")
        command = ("server", f"{APP}:server", f"--job={job}", "--keep-replies", *sites, *options)
        return self.start(*command, **{CRASH_AT: crash_at})

    def model(self, job: str) -> dict[str, bytes]:
        with np.load(self.folder / "runs" / job / "model.npz") as file:
            return {name: file[name].tobytes() for name in file.files}

    def sums(self, job: str) -> int:
        """How many partial sums a finished run was made of."""
        from flmq.common.phase import Phase
        from flmq.journal import PhaseKey

        journal = Journal.open(self.folder / "runs" / job, create=False)
        records = [journal.phases.find(PhaseKey(n, Phase.FIT)) for n in range(1, ROUNDS + 1)]
        journal.close()
        return sum(len(record.sums) for record in records if record is not None)

    def written(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.txt")))

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def sites(broker_url: str, tmp_path: Path) -> Iterator[Sites]:
    made = Sites(broker_url, tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_the_bits_of_the_flat_run_whoever_is_killed(sites: Sites) -> None:
    sites.clients("eu", "eu-{1..3}")
    sites.clients("us", "us-{1..3}")
    flat = sites.server("flat", "--no-aggregators")
    assert flat.wait(PATIENCE) == 0, sites.written()
    eu, _ = sites.aggregator("eu"), sites.aggregator("us")
    regional = sites.server("regional")
    assert regional.wait(PATIENCE) == 0, sites.written()
    assert sites.sums("regional") > 0, sites.written()
    assert sites.model("regional") == sites.model("flat")
    # The server dies with one sum in its journal, and the other one on its way.
    dies = sites.server("killed", crash_at="server.sum_journalled")
    assert dies.wait(PATIENCE) == -signal.SIGKILL, sites.written()
    eu.kill()
    eu.wait()
    sites.aggregator("eu")
    again = sites.server("killed", crash_at="server.sum_checked:2")
    assert again.wait(PATIENCE) == -signal.SIGKILL, sites.written()
    last = sites.server("killed")
    assert last.wait(PATIENCE) == 0, sites.written()
    assert sites.sums("killed") > 1
    assert sites.model("killed") == sites.model("flat")
