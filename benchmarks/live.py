"""A page that is open on a live run: how soon it shows a round, and what it costs.

`python -m benchmarks.live`: a run in memory, of clients that do nothing for a while, is played
without a page and with one, in turns; the page's table of rounds is watched in Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from flmq.client import ClientContext, NumPyClient
from flmq.client.client_ids import clients_of
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.observe.events import RoundClosed, RunEvent
from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.options import RunOptions
from flmq.server.strategy import FedAvg
from flmq.simulation.app import simulate
from tests.browser import chromium
from tests.ui.servers import PageServer

_DELAY = 1.0
_SHARE = 1.0
_WATCH = """
() => {
  window.shownAt = {};
  const look = () => {
    for (const row of document.querySelectorAll("tr[data-round]")) {
      const open = row.querySelector("th").textContent.includes("open");
      if (!open) window.shownAt[row.dataset.round] ??= Date.now();
    }
    requestAnimationFrame(look);
  };
  look();
}
"""


class Waiting(NumPyClient):
    """Trains for as long as it is told, without doing anything."""

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        time.sleep(float(config["seconds"]))
        return [parameters[0] + 1], 1, {"train_loss": float(parameters[0][0])}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return float(parameters[0][0]), 1, {"accuracy": float(parameters[0][0])}


def _client(context: ClientContext) -> NumPyClient:
    return Waiting()


def _play(runs_dir: Path, job: str, rounds: int, clients: int, seconds: float) -> None:
    """Play the run in this process; print when each round was over, and its processor time."""
    closed: dict[int, float] = {}

    def hear(event: RunEvent) -> None:
        if isinstance(event, RoundClosed):
            closed[event.server_round] = time.time() * 1000

    strategy = FedAvg(
        initial_parameters=ndarrays_to_parameters([np.zeros(1000)]),
        on_fit_config_fn=lambda server_round: {"seconds": seconds},
    )
    begun = time.monotonic()
    names = [f"client-{number}" for number in range(clients)]
    simulate(
        _client,
        clients_of(names, {}),
        ServerAppComponents(None, ServerConfig(num_rounds=rounds), strategy),
        RunOptions(job=job, runs_dir=runs_dir, observers=[hear]),
        keep_clients=True,
    )
    used = sum(os.times()[:2])
    print(json.dumps({"closed": closed, "cpu": used, "wall": time.monotonic() - begun}))


def _run(runs_dir: Path, job: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    values = (runs_dir, job, options.rounds, options.clients, options.seconds)
    command = [sys.executable, "-m", "benchmarks.live", "--play", *map(str, values)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _ended(run: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = run.communicate()
    if run.returncode:
        raise SystemExit(f"the run failed with status {run.returncode}")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def main() -> None:
    """Play and watch; print medians beside goals."""
    if sys.argv[1:2] == ["--play"]:
        folder, job, rounds, clients, seconds = sys.argv[2:]
        _play(Path(folder), job, int(rounds), int(clients), float(seconds))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5, help="that a client trains")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    delays: list[float] = []
    shares: list[float] = []
    ratios: list[float] = []
    with tempfile.TemporaryDirectory(prefix="flmq-live-") as name:
        runs_dir = Path(name) / "runs"
        runs_dir.mkdir()
        for turn in range(options.turns):
            alone = _ended(_run(runs_dir, f"alone-{turn}", options))
            with PageServer(runs_dir) as page, chromium() as browser:
                job = f"watched-{turn}"
                run = _run(runs_dir, job, options)
                while not (runs_dir / job / "events.sqlite3").exists():
                    time.sleep(0.05)
                looking = browser.new_page()
                looking.add_init_script(f"({_WATCH})()")
                looking.goto(page.at(f"/runs/{job}"))
                looking.wait_for_timeout(3000)  # it is loaded, once
                before, since = page.cpu_seconds, time.monotonic()
                while run.poll() is None:
                    looking.wait_for_timeout(200)
                shares.append((page.cpu_seconds - before) / (time.monotonic() - since) * 100)
                watched = _ended(run)
                looking.wait_for_timeout(2000)
                shown = looking.evaluate("window.shownAt")
            ratios.append(watched["cpu"] / alone["cpu"])
            # Rounds that were over before the page was there say nothing.
            known = [each for each in watched["closed"] if int(each) > 3]
            delays += [(shown[each] - watched["closed"][each]) / 1000 for each in known]
    print("| what | median | worst | goal |\n|---|---|---|---|")
    delay, worst = statistics.median(delays), max(delays)
    print(f"| a round is shown after | {delay:.2f} s | {worst:.2f} s | {_DELAY:g} s |")
    share, most = statistics.median(shares), max(shares)
    print(f"| a core's time for the page's server | {share:.2f} % | {most:.2f} % | {_SHARE:g} % |")
    ratio = statistics.median(ratios)
    print(
        f"| the run's processor time with the page / without | {ratio:.3f} | {max(ratios):.3f} | |"
    )


if __name__ == "__main__":
    main()
