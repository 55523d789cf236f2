"""``flmq server``: run a job over a broker, shown live and recorded."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flmq.cli.demo.killing import KillsFollower
from flmq.cli.exit_codes import ModelUnchanged
from flmq.cli.folders import writing_run
from flmq.cli.following import Follower
from flmq.cli.load import load_server
from flmq.cli.model import ModelSaver
from flmq.cli.monitoring import Monitoring, Observers
from flmq.cli.options import Broker, pairs, with_options
from flmq.cli.page import Beside
from flmq.cli.process import (
    log_to_file,
    log_to_stderr,
    say_who_is_in_charge,
)
from flmq.cli.saying import says_json
from flmq.cli.stopping import in_order, typed_again
from flmq.cli.trackers import Trackers
from flmq.cli.verbosity import Verbosity, verbosity
from flmq.cli.view.links import LinkWatcher
from flmq.cli.view.live import LiveView, NoView, choose_view
from flmq.cli.view.picture import check_drawable, draw
from flmq.common.environment import broker_url
from flmq.common.errors import UsageError
from flmq.common.model_files import load_parameters
from flmq.common.names import check_job_name, make_job_name
from flmq.common.options import option
from flmq.common.urls import parse_broker_url
from flmq.journal.records import KeepPolicy, RunState
from flmq.journal.runs import look_at
from flmq.monitoring.role import Role
from flmq.observe.events import Observer, RunEnded, RunEvent
from flmq.observe.record import load_record
from flmq.observe.recorder import RunRecorder
from flmq.provision.speakers import speakers_of
from flmq.server.app import run_server_on_broker
from flmq.server.asks.options import CoordinatorOptions
from flmq.server.client_manager import SimpleClientManager
from flmq.server.components import ServerAppComponents
from flmq.server.context import ServerContext
from flmq.server.lifecycle.run_folder import set_aside
from flmq.server.options import ResumePolicy, RunOptions
from flmq.server.rhythm.early_stopping import EarlyStopping
from flmq.server.secure.options import KeyOptions
from flmq.server.server_config import ServerConfig
from flmq.sites.federation import Federation
from flmq.sites.reading import read_federation

__all__ = ["InvalidServerCommand", "ServerCommand", "serve", "server"]


class InvalidServerCommand(UsageError):
    """Options of ``flmq server`` contradict each other, or are out of range."""


@dataclass(frozen=True, slots=True)
class InsteadOfApp:
    """Command-line options that override the app's settings."""

    rounds: int | None = option(None, "Rounds, instead of what the app says.", at_least=0)
    round_timeout: float | None = option(
        None, "Seconds a phase of a round may take, instead of what the app says."
    )
    wait_timeout: float | None = option(
        None, "Seconds to wait for enough clients before the run fails.", at_least=0
    )
    initial: Path | None = option(
        None, "The initial model, instead of what the app says: .npz or .safetensors."
    )

    patience: int | None = option(
        None,
        "Stop early once --monitor has not improved for this many rounds, instead of when the app "
        "says.",
        at_least=1,
    )
    target: float | None = option(
        None, "Stop early once --monitor is this good, instead of when the app says."
    )
    monitor: str | None = option(
        None, 'What stops early: "loss", the default, or the name of a metric.'
    )
    min_delta: float | None = option(
        None, "By how much --monitor must be better than the best to count.", at_least=0
    )

    def __post_init__(self) -> None:
        """Refuse options of early stopping that would stop nothing."""
        for name in ("monitor", "min_delta"):
            if getattr(self, name) is not None and self.patience is None and self.target is None:
                typed = f"--{name.replace('_', '-')}"
                raise InvalidServerCommand(f"{typed} is for --patience or --target: give one too")

    def adjusted(self, parts: ServerAppComponents) -> ServerAppComponents:
        """Return the app's ``parts`` with these settings in place of its own.

        Raises:
            InvalidServerCommand: a setting is not valid.
            UnreadableModelFile: the initial model cannot be read.
        """
        if self.initial is not None:
            parts = replace(parts, initial_parameters=load_parameters(self.initial))
        return self._waiting(replace(parts, config=self._config(parts.config or ServerConfig())))

    def _config(self, config: ServerConfig) -> ServerConfig:
        if self.rounds is not None:
            config = replace(config, num_rounds=self.rounds)
        if self.patience is not None or self.target is not None:
            config = replace(config, early_stopping=self._early_stopping())
        if self.round_timeout is None:
            return config
        try:
            return replace(config, round_timeout=self.round_timeout)
        except ValueError as error:
            raise InvalidServerCommand(f"--round-timeout: {error}") from error

    def _early_stopping(self) -> EarlyStopping:
        try:
            return EarlyStopping(
                monitor="loss" if self.monitor is None else self.monitor,
                patience=self.patience,
                min_delta=self.min_delta or 0.0,
                target=self.target,
            )
        except ValueError as error:
            raise InvalidServerCommand(f"--patience, --target: {error}") from error

    def _waiting(self, parts: ServerAppComponents) -> ServerAppComponents:
        if self.wait_timeout is None:
            return parts
        manager = parts.client_manager
        if parts.server is not None:
            manager = parts.server.client_manager()
        elif manager is None:
            manager = SimpleClientManager()
            parts = replace(parts, client_manager=manager)
        if isinstance(manager, SimpleClientManager):
            manager.wait_timeout = self.wait_timeout
        return parts


@dataclass(frozen=True, slots=True)
class Beginning:
    """Whether to resume an earlier run of the job."""

    resume: bool = option(
        False,
        "Go on with the job also where strategy or configuration changed.",
        names=("--resume",),
    )
    fresh: bool = option(
        False, "Begin the job anew; its earlier run is moved aside.", names=("--fresh",)
    )

    def __post_init__(self) -> None:
        """Refuse contradicting options."""
        if self.resume and self.fresh:
            raise InvalidServerCommand(
                "--resume goes on with a job and --fresh begins it anew: drop one of the two"
            )

    @property
    def policy(self) -> ResumePolicy:
        """The resume policy; a fresh job's old journal is moved aside before."""
        return ResumePolicy.ANYWAY if self.resume else ResumePolicy.SAME


@dataclass(frozen=True, slots=True)
class Keeping:
    """Which models and replies stay on disk."""

    keep_best: str | None = option(
        None,
        'Keep the best model so far, by "loss" or by the name of a metric, in best.safetensors.',
    )
    keep_every: int | None = option(None, "Keep every k-th round's model.", at_least=1)
    keep_replies: bool = option(
        False, "Keep all replies, for `flmq runs replay`.", names=("--keep-replies",)
    )

    @property
    def policy(self) -> KeepPolicy:
        """The settings as the journal takes them."""
        return KeepPolicy(self.keep_best, self.keep_every, "all" if self.keep_replies else "round")


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """The arguments of ``flmq server``."""

    app: str
    broker: str
    job: str
    run: RunOptions
    """Includes the job's name and its folder."""
    instead: InsteadOfApp
    context: ServerContext
    folder: Path
    """The run's own."""
    picture: bool
    monitoring: Monitoring = field(default_factory=Monitoring)
    federation: Federation | None = None
    """The sites whose links are shown; None: they are not known."""
    page: Beside = field(default_factory=Beside)
    trackers: tuple[Observer, ...] = ()
    """What writes the run for other tools."""


@with_options
def server(
    app: Annotated[
        str,
        typer.Argument(
            help="The server, as module:name: ServerAppComponents, a Strategy, a Server, or a "
            "function that makes one.",
            show_default=False,
        ),
    ],
    broker: Broker = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", "-c", help="key=value for the app's ServerContext.run_config."),
    ] = None,
    *,
    instead: InsteadOfApp,
    run: RunOptions,
    beginning: Beginning,
    coordinator: CoordinatorOptions,
    keys: KeyOptions,
    keeping: Keeping,
    monitoring: Monitoring,
    trackers: Trackers,
    page: Beside,
    picture: Annotated[
        bool,
        typer.Option(help="Draw runs/<job>/rounds.png at the end (needs the extra `demo`)."),
    ] = False,
    federation: Annotated[
        Path | None,
        typer.Option(
            envvar="FLMQ_FEDERATION",
            help="federation.toml: call the roll at all its sites, show their links, and know "
            "which users speak for several clients.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a job: publish tasks to clients, gather their replies, aggregate, round by round."""
    monitoring.begin()
    job = make_job_name() if run.job is None else check_job_name(run.job)
    url = broker_url(broker)
    vhost = parse_broker_url(url).vhost
    sites = None if federation is None else read_federation(federation, vhost=vhost)
    if sites is not None:
        names = (sites.hub.name, *(site.name for site in sites))
        assert federation is not None
        coordinator = replace(
            coordinator,
            sites=tuple(dict.fromkeys(names)),
            speakers=speakers_of(federation, vhost),
        )
    run = replace(
        run,
        job=job,
        resume=beginning.policy,
        anew=beginning.fresh,
        keep=keeping.policy,
        coordinator=replace(coordinator, protection=keys.load()),
    )
    context = ServerContext(job, pairs("--config", config or []))
    assert run.runs_dir is not None
    serve(
        ServerCommand(
            app=app,
            broker=url,
            job=job,
            run=run,
            instead=instead,
            context=context,
            folder=run.runs_dir / job,
            picture=picture,
            monitoring=monitoring,
            federation=sites,
            page=page,
            trackers=trackers.observers(context.run_config),
        )
    )


def serve(command: ServerCommand) -> None:
    """Execute the command. Blocks until the run is over."""
    with in_order(lambda: _goes_on(command)):
        _serve(command)


def _goes_on(command: ServerCommand) -> str:
    """Return text on what happens to the job of a stopped server, and how to resume it."""
    folder, job = command.folder, command.job
    run = look_at(folder)
    if run.state is RunState.RUNNING:
        return f"job {job} is run by another server, which goes on"
    if run.state is RunState.FINISHED:
        return f"job {job} is over: what it left is in {folder}"
    again = typed_again(f"--job={job}", without=("--fresh",))
    if run.started_unix_ms is None:
        return f"job {job} had not begun; begin it with: {again}"
    return (
        f"job {job} is not over: {folder} keeps what it has, and its clients wait for its server. "
        f"Go on with: {again}"
    )


def _serve(command: ServerCommand) -> None:
    if command.picture:
        check_drawable()
    if command.run.anew:
        set_aside(command.folder)
    with writing_run(command.folder):
        log_to_file(command.folder / "server.log")
    # Where the log is for programs, all that the view shows is in it, and nothing else is written.
    console = Console(quiet=says_json() or verbosity() is Verbosity.QUIET)
    view = NoView() if says_json() else choose_view(console)
    if isinstance(view, NoView):
        log_to_stderr(logging.INFO)
    elif not isinstance(view, LiveView):
        # The plain view shows what the log's warnings say, and more.
        log_to_stderr(logging.ERROR)
    if not isinstance(view, NoView):
        say_who_is_in_charge()
    parts = command.instead.adjusted(load_server(command.app, command.context))
    ending = _Ending()
    with command.monitoring.shown(Role.SERVER, command.run.vitals) as seen:
        recorder = RunRecorder(command.folder.parent, about=command.context.run_config)
        options = _observed(command, (recorder, view, ending), seen)
        say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
        page = command.page.shown(command.run.runs_dir, command.broker, say)
        try:
            with page, view:
                run_server_on_broker(command.broker, parts, options)
        finally:
            recorder.complete()
    _show_results(command, console)
    if ending.unchanged:
        raise ModelUnchanged(command.job, ending.rounds, ending.unchanged)


def _observed(command: ServerCommand, shown: tuple[Observer, ...], seen: Observers) -> RunOptions:
    """Return the run's options with its observers added."""
    followers: list[Follower] = []
    if kills := KillsFollower.of_demo():
        followers.append(kills)
    if command.federation is not None:
        followers.append(LinkWatcher(command.federation))
    return replace(
        command.run,
        observers=(
            ModelSaver(command.folder),
            *shown,
            *followers,
            *seen.run,
            *command.trackers,
        ),
        sources=tuple(follower.start for follower in followers),
    )


def _show_results(command: ServerCommand, console: Console) -> None:
    folder = command.folder
    console.print(f"record: {folder / 'history.json'}", highlight=False, soft_wrap=True)
    if command.picture:
        draw(load_record(folder), folder / "rounds.png")
        console.print(f"picture: {folder / 'rounds.png'}", highlight=False, soft_wrap=True)


class _Ending:
    """What the exit status of the command depends on."""

    unchanged = ""
    rounds = 0

    def __call__(self, event: RunEvent) -> None:
        if isinstance(event, RunEnded):
            self.unchanged, self.rounds = event.unchanged, event.rounds
