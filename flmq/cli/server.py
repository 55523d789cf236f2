"""``flmq server``: run a job over a broker, shown live and recorded."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flmq.cli.exit_codes import ModelUnchanged
from flmq.cli.folders import writing_run
from flmq.cli.killing import kills_source
from flmq.cli.load import load_server
from flmq.cli.model import ModelSaver
from flmq.cli.options import Broker, RunsDir, pairs
from flmq.cli.picture import check_drawable, draw
from flmq.cli.process import (
    log_to_file,
    log_to_stderr,
    say_who_is_in_charge,
)
from flmq.cli.stopping import in_order, typed_again
from flmq.cli.view import LiveView, choose_view
from flmq.common.environment import broker_url
from flmq.common.errors import UsageError
from flmq.common.names import check_job_name, make_job_name
from flmq.common.typing import Scalar
from flmq.journal.records import KeepPolicy, RunState
from flmq.journal.runs import look_at
from flmq.observe.events import RunEnded, RunEvent
from flmq.observe.record import load_record
from flmq.observe.recorder import RunRecorder
from flmq.server.app import run_server_on_broker
from flmq.server.asks.coordinator import CoordinatorOptions
from flmq.server.client_manager import SimpleClientManager
from flmq.server.components import ServerAppComponents
from flmq.server.context import ServerContext
from flmq.server.options import ResumePolicy, RunOptions
from flmq.server.presence.allow_list import read_allow_list
from flmq.server.resumption.run_folder import set_aside
from flmq.server.server_config import ServerConfig
from flmq.server.strategy.late import LateReplies
from flmq.wire.bounds import MAX_HEARTBEAT, MIN_HEARTBEAT
from flmq.wire.codecs import CODECS

__all__ = ["InvalidServerCommand", "ServerCommand", "serve", "server"]


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """What ``flmq server`` was asked to do."""

    app: str
    broker: str
    job: str
    config: dict[str, Scalar]
    rounds: int | None
    round_timeout: float | None
    wait_timeout: float | None
    heartbeat: float
    seed: int | None
    runs_dir: Path
    picture: bool
    sites: tuple[str, ...]
    compression: str
    max_reply_bytes: int | None
    clients_allowed: frozenset[str] | None
    resume: ResumePolicy
    standby: bool
    keep: KeepPolicy
    late: LateReplies | None


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
    job: Annotated[
        str | None,
        typer.Option(envvar="FLMQ_JOB", help="Name of the job. Default: one of its own each time."),
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option("--config", "-c", help="key=value for the app's ServerContext.run_config."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=0, help="Rounds, instead of what the app says.")
    ] = None,
    round_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds a phase of a round may take, instead of what the app says."),
    ] = None,
    wait_timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds to wait for enough clients before the run fails."),
    ] = None,
    heartbeat: Annotated[
        float,
        typer.Option(
            envvar="FLMQ_HEARTBEAT",
            min=MIN_HEARTBEAT,
            max=MAX_HEARTBEAT,
            help="Seconds between clients' signs of life; 2.5 of them missed is away.",
        ),
    ] = 30.0,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the choice of clients. Default: made from the job's name."),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    picture: Annotated[
        bool,
        typer.Option(help="Draw runs/<job>/rounds.png at the end (needs the extra `demo`)."),
    ] = False,
    site: Annotated[
        list[str] | None,
        typer.Option(envvar="FLMQ_SITES", help="Datacenters whose clients take part."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the job also where strategy or configuration changed."
        ),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin the job anew; its earlier run is moved aside.")
    ] = False,
    standby: Annotated[
        bool,
        typer.Option(
            "--standby/--no-standby",
            help="Wait while another server has the job, and take over when it is gone; or fail "
            "at once.",
        ),
    ] = True,
    late: Annotated[
        LateReplies | None,
        typer.Option(
            help="What becomes of training that comes after its round closed, instead of what the "
            "strategy says: drop, or next-round (it counts there).",
            show_default=False,
        ),
    ] = None,
    compression: Annotated[
        str,
        typer.Option(
            envvar="FLMQ_COMPRESSION",
            help=f"How clients compress their replies: {', '.join(CODECS)}. zstd loses nothing; "
            "the others round, within stated bounds (docs/performance.md).",
        ),
    ] = "none",
    max_reply_bytes: Annotated[
        int | None,
        typer.Option(
            envvar="FLMQ_MAX_REPLY_BYTES",
            min=1,
            help="Refuse larger replies. Default: four times what was sent, and 64 MiB.",
            show_default=False,
        ),
    ] = None,
    clients_allow: Annotated[
        Path | None,
        typer.Option(
            envvar="FLMQ_CLIENTS_ALLOW",
            help="File with the ids of the clients that may take part, one a line. Default: all.",
            show_default=False,
        ),
    ] = None,
    keep_best: Annotated[
        str | None,
        typer.Option(help='Keep the best model so far, by "loss" or by the name of a metric.'),
    ] = None,
    keep_every: Annotated[
        int | None, typer.Option(min=1, help="Keep every k-th round's model.")
    ] = None,
    keep_replies: Annotated[
        bool,
        typer.Option("--keep-replies", help="Keep all replies, for `flmq runs replay`."),
    ] = False,
) -> None:
    """Run a job: publish tasks to clients, gather their replies, aggregate, round by round."""
    serve(
        ServerCommand(
            app=app,
            broker=broker_url(broker),
            job=make_job_name() if job is None else check_job_name(job),
            config=pairs("--config", config or []),
            rounds=rounds,
            round_timeout=round_timeout,
            wait_timeout=wait_timeout,
            heartbeat=heartbeat,
            seed=seed,
            runs_dir=runs_dir,
            picture=picture,
            sites=tuple(site or ["main"]),
            compression=compression,
            max_reply_bytes=max_reply_bytes,
            clients_allowed=None if clients_allow is None else read_allow_list(clients_allow),
            resume=_resume_policy(resume=resume, fresh=fresh),
            standby=standby,
            keep=KeepPolicy(keep_best, keep_every, "all" if keep_replies else "round"),
            late=late,
        )
    )


class InvalidServerCommand(UsageError):
    """Options of ``flmq server`` that contradict each other, or are out of their range."""


def _resume_policy(*, resume: bool, fresh: bool) -> ResumePolicy:
    if resume and fresh:
        raise InvalidServerCommand(
            "--resume goes on with a job and --fresh begins it anew: drop one of the two"
        )
    if fresh:
        return ResumePolicy.FRESH
    return ResumePolicy.ANYWAY if resume else ResumePolicy.SAME


def serve(command: ServerCommand) -> None:
    """Do what the command says. Blocks until the run is over."""
    with in_order(lambda: _goes_on(command)):
        _serve(command)


def _goes_on(command: ServerCommand) -> str:
    """What becomes of the job when its server is stopped, and how to go on."""
    folder, job = command.runs_dir / command.job, command.job
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
    folder = command.runs_dir / command.job
    if command.picture:
        check_drawable()
    if command.resume is ResumePolicy.FRESH:
        set_aside(folder)
    with writing_run(folder):
        log_to_file(folder / "server.log")
    console = Console()
    view = choose_view(console)
    if not isinstance(view, LiveView):
        # The plain view says what the log's warnings say, and more.
        log_to_stderr(logging.ERROR)
    say_who_is_in_charge()
    parts = _adjusted(load_server(command.app, ServerContext(command.job, command.config)), command)
    recorder = RunRecorder(command.runs_dir, about=command.config)
    kills = kills_source()
    ending = _Ending()
    options = RunOptions(
        job=command.job,
        seed=command.seed,
        runs_dir=command.runs_dir,
        # A fresh job's old folder was moved aside above, before the log was begun in the new one.
        resume=ResumePolicy.SAME if command.resume is ResumePolicy.FRESH else command.resume,
        anew=command.resume is ResumePolicy.FRESH,
        keep=command.keep,
        standby=command.standby,
        late=command.late,
        coordinator=CoordinatorOptions(
            sites=command.sites,
            heartbeat=command.heartbeat,
            compression=command.compression,
            max_reply_bytes=command.max_reply_bytes,
            clients_allowed=command.clients_allowed,
        ),
        observers=(recorder, ModelSaver(folder), view, ending),
        sources=() if kills is None else (kills,),
    )
    with view:
        run_server_on_broker(command.broker, parts, options)
    console.print(f"record: {folder / 'history.json'}", highlight=False, soft_wrap=True)
    if command.picture:
        draw(load_record(folder), folder / "rounds.png")
        console.print(f"picture: {folder / 'rounds.png'}", highlight=False, soft_wrap=True)
    if ending.unchanged:
        raise ModelUnchanged(command.job, ending.rounds, ending.unchanged)


class _Ending:
    """What the status of the command depends on."""

    unchanged = ""
    rounds = 0

    def __call__(self, event: RunEvent) -> None:
        if isinstance(event, RunEnded):
            self.unchanged, self.rounds = event.unchanged, event.rounds


def _adjusted(parts: ServerAppComponents, command: ServerCommand) -> ServerAppComponents:
    """The app's parts with what the command line says instead."""
    config = ServerConfig() if parts.config is None else parts.config
    if command.rounds is not None:
        config = replace(config, num_rounds=command.rounds)
    if command.round_timeout is not None:
        try:
            config = replace(config, round_timeout=command.round_timeout)
        except ValueError as error:
            raise InvalidServerCommand(f"--round-timeout: {error}") from error
    parts = replace(parts, config=config)
    if command.wait_timeout is not None:
        manager = parts.client_manager
        if parts.server is not None:
            manager = parts.server.client_manager()
        elif manager is None:
            manager = SimpleClientManager()
            parts = replace(parts, client_manager=manager)
        if isinstance(manager, SimpleClientManager):
            manager.wait_timeout = command.wait_timeout
    return parts
