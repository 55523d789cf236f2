"""``flmq demo``: learn the handwritten digits with real processes over a real broker."""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from click.core import ParameterSource
from rich.console import Console

from flmq.cli.children import Children
from flmq.cli.demo import digits
from flmq.cli.demo.digits import DigitsSettings
from flmq.cli.demo.killing import KILLS_FILE, tell_kills
from flmq.cli.demo.stage import SERVER, Stage, plain_stage, secure_stage
from flmq.cli.folders import writing_run
from flmq.cli.model import ModelSaver, model_digest
from flmq.cli.options import Broker, RunsDir, with_options
from flmq.cli.process import SAFELY_FLMQ, log_to_file, log_to_stderr
from flmq.cli.stopping import PART_OF_DEMO, in_order, typed_again
from flmq.cli.verbosity import Verbosity, verbosity
from flmq.cli.view.live import NoView, choose_view
from flmq.cli.view.picture import check_drawable, draw
from flmq.common.errors import FlmqError, UsageError
from flmq.common.files import make_folder
from flmq.common.options import option
from flmq.common.parameter import ndarrays_to_parameters
from flmq.common.typing import Scalar
from flmq.datasets.digits import check_data
from flmq.journal import Journal
from flmq.observe.record import killed_note, killed_rounds, load_record, save_record
from flmq.observe.recorder import RunRecorder
from flmq.server.components import ServerAppComponents
from flmq.server.options import RunOptions
from flmq.server.server_config import ServerConfig
from flmq.simulation.app import simulate

__all__ = [
    "DemoCommand",
    "DemoPlan",
    "InvalidDemo",
    "Progress",
    "client_argv",
    "demo",
    "run_demo",
    "run_in_memory",
    "server_argv",
    "status_of_server",
]

_HEARTBEAT = 1.0
_RESTART_AFTER = 1.0
_LOOK_EVERY = 0.02


class InvalidDemo(UsageError):
    """Options of the demo contradict each other."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """The plan of a demo."""

    rounds: int = option(10, "Rounds of training.", at_least=1)
    kill: int = option(
        0, "Clients to kill (-9) on the way and start again a second later.", at_least=0
    )
    lose: int = option(0, "Clients to kill on the way and not start again.", at_least=0)
    round_timeout: float | None = option(
        None, "Seconds a round may wait. Default: 60, with --lose 10.", at_least=0.1
    )
    in_memory: bool = option(
        False,
        "No broker and no processes: all in this one, simulated.",
        names=("--in-memory",),
    )

    secure: bool = option(
        False,
        "TLS, each process with its own certificate, rights and keys (--e2e); starts a broker.",
        names=("--secure",),
    )

    def check(self, clients: int, *, broker_named: bool) -> None:
        """Check that this many ``clients`` can do it.

        Raises:
            InvalidDemo: they cannot, or options contradict each other.
        """
        if self.in_memory and (self.kill or self.lose or broker_named):
            raise InvalidDemo(
                "--in-memory has no processes to kill and no broker: drop one of the two"
            )
        if self.secure and (self.in_memory or broker_named):
            raise InvalidDemo("--secure starts a broker of its own: drop --in-memory and --broker")
        if self.kill + self.lose > clients or self.lose >= clients:
            raise InvalidDemo(
                f"{self.kill} to kill and {self.lose} to lose are too many of {clients} clients"
            )
        if (self.kill or self.lose) and self.rounds < 3:
            raise InvalidDemo("kills happen in the second round or later: give --rounds 3 or more")

    @property
    def patience(self) -> float:
        """Seconds that a round may wait."""
        return self.round_timeout or (10.0 if self.lose else 60.0)


@dataclass(frozen=True, slots=True)
class DemoCommand:
    """The arguments of ``flmq demo``."""

    settings: DigitsSettings
    plan: DemoPlan
    broker: str | None
    job: str
    runs_dir: Path

    @property
    def folder(self) -> Path:
        """Folder of this run's files."""
        return self.runs_dir / self.job

    @property
    def kills_file(self) -> Path:
        """File from which the server reads which clients were killed."""
        return self.folder / "clients" / "killed"

    @property
    def clients(self) -> list[str]:
        """Client ids."""
        width = len(str(self.settings.num_partitions - 1))
        return [f"client-{i:0{width}}" for i in range(self.settings.num_partitions)]

    @property
    def about(self) -> dict[str, Scalar]:
        """Information on the run for server and record."""
        return {
            "num_partitions": self.settings.num_partitions,
            "partition": self.settings.partition,
            "alpha": self.settings.alpha,
            "seed": self.settings.seed,
            "model": self.settings.model,
            "min_clients": self.settings.num_partitions - self.plan.lose,
        }


@with_options
def demo(
    context: typer.Context,
    settings: DigitsSettings,
    plan: DemoPlan,
    broker: Broker = None,
    job: Annotated[str | None, typer.Option(help="Name of the job and its folder.")] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Train on scikit-learn's digits: a broker, a server and client processes, shown live."""
    named = context.get_parameter_source("broker") is ParameterSource.COMMANDLINE
    plan.check(settings.num_partitions, broker_named=named)
    name = job or f"digits-{datetime.now():%Y%m%d-%H%M%S}"
    raise typer.Exit(run_demo(DemoCommand(settings, plan, broker, name, runs_dir)))


def run_demo(command: DemoCommand) -> int:
    """Run the demo, and return the exit status."""
    # Check for what is needed at the very end before anything is trained.
    check_drawable()
    check_data()
    console = Console(highlight=False, quiet=verbosity() is Verbosity.QUIET)
    with in_order(lambda: _goes_on(command)):
        status = (
            run_in_memory(command, console) if command.plan.in_memory else _run(command, console)
        )
        if status == 0:
            _show_results(command, console)
    return status


def _goes_on(command: DemoCommand) -> str:
    """Return text on what is left of a stopped demo, and how to resume it."""
    if command.plan.in_memory:
        return f"nothing is left running; begin anew with: {typed_again()}"
    again = typed_again(f"--job={command.job}")
    return f"nothing is left running, and {command.folder} keeps the rounds. Go on with: {again}"


def run_in_memory(command: DemoCommand, console: Console) -> int:
    """Run the demo in this process, simulated; return the exit status."""
    console.print("in memory: one process, no RabbitMQ (simulated)", style="yellow")
    with writing_run(command.folder):
        log_to_file(command.folder / "server.log")
    settings = command.settings
    clients = {client_id: settings.properties(i) for i, client_id in enumerate(command.clients)}
    view = choose_view(console)
    if isinstance(view, NoView):
        log_to_stderr(logging.INFO)
    options = RunOptions(
        job=command.job,
        observers=(
            RunRecorder(command.runs_dir, about=command.about),
            ModelSaver(command.folder),
            view,
        ),
    )
    parts = ServerAppComponents(
        strategy=digits.strategy(settings, settings.num_partitions, 0.0),
        config=ServerConfig(command.plan.rounds, command.plan.patience),
    )
    with view:
        simulate(digits.client, clients, parts, options, keep_clients=True)
    return 0


def _run(command: DemoCommand, console: Console) -> int:
    with writing_run(command.folder):
        make_folder(command.folder / "clients")
    stage_of = secure_stage if command.plan.secure else plain_stage
    with stage_of(command.broker, command.folder, command.clients, console) as stage:
        children = Children(
            {
                "FLMQ_HEARTBEAT": str(_HEARTBEAT),
                "FLMQ_GRACE": "0",  # what ends them is the end of the demo
                PART_OF_DEMO: "1",
                KILLS_FILE: str(command.kills_file),
            }
        )
        try:
            for client_id in command.clients:
                _start_client(children, command, stage, client_id)
            argv = [*server_argv(command), *stage.options(SERVER)]
            children.start(SERVER, argv, env=stage.environ(SERVER))
            _watch(children, command, stage)
            # The clients learn of the job's end from the broker, and exit by themselves.
            children.wait(command.clients, timeout=5.0)
        except KeyboardInterrupt:
            children.interrupt(SERVER)
            children.wait([SERVER], timeout=5.0)
            raise
        finally:
            children.end()
    return status_of_server(children)


def status_of_server(children: Children) -> int:
    """Return the exit status of the demo, which is that of its server unless a signal ended it."""
    status = children.exit_status(SERVER)
    return 1 if status is None or status < 0 else status


def _watch(
    children: Children,
    command: DemoCommand,
    stage: Stage,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait for the server's end; meanwhile kill and restart clients as requested."""
    kills = _Kills.plan(command)
    restarts: list[tuple[float, str]] = []
    progress = Progress(command.folder)
    while children.running(SERVER):
        now = clock()
        rounds_done = progress.rounds_done()
        due = kills.due(rounds_done)
        for client_id in due:
            children.kill(client_id)
            if client_id not in kills.lost:
                restarts.append((now + _RESTART_AFTER, client_id))
        if due:
            tell_kills(command.kills_file, due, rounds_done + 1)
        for restart in [restart for restart in restarts if restart[0] <= now]:
            restarts.remove(restart)
            _start_client(children, command, stage, restart[1])
        children.wait([SERVER], _LOOK_EVERY)
    progress.close()
    kills.note(command)


@dataclass(slots=True)
class _Kills:
    """Which client is killed when, drawn from the seed."""

    planned: dict[str, int]
    """The round in which each client is killed, by client id."""
    lost: frozenset[str]
    done: dict[str, int]

    @classmethod
    def plan(cls, command: DemoCommand) -> _Kills:
        rng = random.Random(f"kills {command.settings.seed}")
        victims = rng.sample(command.clients, command.plan.kill + command.plan.lose)
        last = max(2, command.plan.rounds - 2)
        return cls(
            {v: rng.randint(2, last) for v in victims}, frozenset(victims[command.plan.kill :]), {}
        )

    def due(self, rounds_done: int) -> list[str]:
        """Return the clients to kill now."""
        due = [v for v, r in self.planned.items() if r <= rounds_done + 1 and v not in self.done]
        self.done.update(dict.fromkeys(due, rounds_done + 1))
        return due

    def note(self, command: DemoCommand) -> None:
        """Add to the record kills that the server was not told of while it ran."""
        if not self.done:
            return
        record = load_record(command.folder)
        told = {client_id for ids in killed_rounds(record).values() for client_id in ids}
        untold = {v: r for v, r in self.done.items() if v not in told}
        notes = [
            killed_note([v for v, r in untold.items() if r == server_round], server_round)
            for server_round in sorted(set(untold.values()))
        ]
        if notes:
            added = tuple((note.server_round, note.text) for note in notes)
            save_record(
                replace(record, notes=record.notes + added), command.folder / "history.json"
            )


class Progress:
    """How many rounds the server has closed, according to its journal."""

    def __init__(self, folder: Path) -> None:
        """Follow the run in ``folder``, which may not have begun."""
        self._folder = folder
        self._journal: Journal | None = None

    def rounds_done(self) -> int:
        """Return the number of closed rounds."""
        try:
            if self._journal is None:
                self._journal = Journal.open(self._folder, create=False)
            return self._journal.rounds_done
        except (FlmqError, RuntimeError):
            return 0  # not begun yet

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()


def _start_client(children: Children, command: DemoCommand, stage: Stage, client_id: str) -> None:
    log = command.folder / "clients" / f"{client_id}.log"
    argv = [*client_argv(command, client_id), *stage.options(client_id)]
    children.start(client_id, argv, log, stage.environ(client_id))


def client_argv(command: DemoCommand, client_id: str) -> list[str]:
    """Return the command of one client."""
    index = command.clients.index(client_id)
    properties = _assignments("--property", command.settings.properties(index))
    argv = [*_flmq("client"), "flmq.cli.demo.digits:client", f"--client-id={client_id}", "--once"]
    return argv + properties


def server_argv(command: DemoCommand) -> list[str]:
    """Return the command of the server."""
    return [
        *_flmq("server"),
        "flmq.cli.demo.digits:server",
        f"--job={command.job}",
        f"--rounds={command.plan.rounds}",
        f"--round-timeout={command.plan.patience}",
        f"--runs-dir={command.runs_dir}",
        "--wait-timeout=60",
        *_assignments("--config", command.about),
    ]


def _assignments(option: str, values: Mapping[str, Scalar]) -> list[str]:
    return ["=".join((option, key, str(value))) for key, value in values.items()]


def _flmq(name: str) -> list[str]:
    return [sys.executable, *SAFELY_FLMQ, name]


def _show_results(command: DemoCommand, console: Console) -> None:
    picture = command.folder / "rounds.png"
    draw(load_record(command.folder), picture)
    with np.load(command.folder / "model.npz") as file:
        model = [file[name] for name in file.files]
    console.print(f"picture: {os.path.relpath(picture)}", soft_wrap=True)
    console.print(f"model sha256: {model_digest(ndarrays_to_parameters(model))}", soft_wrap=True)
    if command.plan.kill and not command.plan.lose:
        console.print("run it without --kill: the model has the same sha256", soft_wrap=True)
