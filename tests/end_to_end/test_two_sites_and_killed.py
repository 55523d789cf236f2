"""Two sites with their aggregators, as processes: the flat run's bits, whoever is killed.

Both sites are on one broker, as the bindings of sites are the same there; brokers of their own are
the business of the tests of sites.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flmq.common.crashpoints import CRASH_AT
from flmq.common.phase import Phase
from flmq.journal import Journal, PhaseKey
from tests.end_to_end.regional_app import ROUNDS
from tests.processes import Commands

APP = "tests.end_to_end.regional_app"
PATIENCE = 120.0


class Sites(Commands):
    """The processes of a federation of two sites."""

    def aggregator(self, site: str) -> subprocess.Popen[bytes]:
        state = str(self.folder / f"state-{site}")
        arguments = (f"--site={site}", f"--state-dir={state}", "--report-every=0.2")
        return self.run("aggregate", *arguments)

    def clients(self, site: str, ids: str) -> None:
        self.run("client", f"{APP}:client", f"--site={site}", f"--client-ids={ids}")

    def server(self, job: str, *options: str, crash_at: str = "") -> subprocess.Popen[bytes]:
        sites = ("--site=eu", "--site=us")
        command = ("server", f"{APP}:server", f"--job={job}", "--keep-replies", *sites, *options)
        return self.run(*command, **{CRASH_AT: crash_at})

    def model(self, job: str) -> dict[str, bytes]:
        with np.load(self.folder / "runs" / job / "model.npz") as file:
            return {name: file[name].tobytes() for name in file.files}

    def sums(self, job: str) -> int:
        """How many partial sums a finished run was made of."""
        journal = Journal.open(self.folder / "runs" / job, create=False)
        records = [journal.phases.find(PhaseKey(n, Phase.FIT)) for n in range(1, ROUNDS + 1)]
        journal.close()
        return sum(len(record.sums) for record in records if record is not None)


@pytest.fixture
def sites(broker_url: str, tmp_path: Path) -> Iterator[Sites]:
    made = Sites(broker_url, tmp_path)
    yield made
    made.end()


@pytest.mark.slow
def test_the_bits_of_the_flat_run_whoever_is_killed(sites: Sites) -> None:
    sites.clients("eu", "eu-{1..3}")
    sites.clients("us", "us-{1..3}")
    flat = sites.server("flat", "--no-aggregators")
    assert flat.wait(PATIENCE) == 0, sites.outputs()
    eu, _ = sites.aggregator("eu"), sites.aggregator("us")
    regional = sites.server("regional")
    assert regional.wait(PATIENCE) == 0, sites.outputs()
    assert sites.sums("regional") > 0, sites.outputs()
    assert sites.model("regional") == sites.model("flat")
    # The server dies with one sum in its journal, and the other one on its way.
    dies = sites.server("killed", crash_at="server.sum_journalled")
    assert dies.wait(PATIENCE) == -signal.SIGKILL, sites.outputs()
    eu.kill()
    eu.wait()
    sites.aggregator("eu")
    again = sites.server("killed", crash_at="server.sum_checked:2")
    assert again.wait(PATIENCE) == -signal.SIGKILL, sites.outputs()
    last = sites.server("killed")
    assert last.wait(PATIENCE) == 0, sites.outputs()
    assert sites.sums("killed") > 1
    assert sites.model("killed") == sites.model("flat")
