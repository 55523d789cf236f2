"""One run, from taking charge of its job to its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flmq.common.crashpoints import crash_point
from flmq.common.failure_text import error_text
from flmq.common.logger import logger, logging_about
from flmq.common.names import check_job_name, make_job_name
from flmq.common.scalars import check_scalars
from flmq.common.typing import Scalar
from flmq.journal.errors import Fenced, JournalGone
from flmq.observe.bus import EventBus
from flmq.observe.eventlog.writer import EventLog, EventLogOptions
from flmq.observe.events import (
    ClientsAwaited,
    Note,
    RoundClosed,
    RunEnded,
    RunEvent,
    RunStarted,
)
from flmq.observe.learned import Learned
from flmq.observe.past_rounds import past_rounds
from flmq.round import Policy
from flmq.server.asks.asks import Records
from flmq.server.asks.coordinator import Coordinator
from flmq.server.asks.queue_client_proxy import QueueClientProxy
from flmq.server.client_manager import SimpleClientManager
from flmq.server.components import ServerAppComponents, build_server
from flmq.server.history import History
from flmq.server.job.late import LateReplyPolicy
from flmq.server.lifecycle.job_lock import take_job
from flmq.server.lifecycle.run_folder import OpenRun, open_run
from flmq.server.lifecycle.signs import in_charge, listening, not_in_charge
from flmq.server.options import RunOptions
from flmq.server.presence.watcher import PresenceWatcher
from flmq.server.resumption.best_model import BestModel
from flmq.server.resumption.checkpointer import Checkpointer
from flmq.server.resumption.job_journal import JobJournal
from flmq.server.resumption.reply_journal import ReplyJournal
from flmq.server.rhythm.callbacks import Callback, Callbacks, RoundEnd
from flmq.server.server import Server
from flmq.server.server_config import ServerConfig
from flmq.server.strategy.late import LateReplies
from flmq.transport import Transport

__all__ = ["final_measurement", "run_server"]

_DAY = 24 * 3600.0


def run_server(
    transport: Transport,
    parts: ServerAppComponents,
    options: RunOptions,
    *,
    bus: EventBus,
    broker: str,
) -> History:
    """Run a job over ``transport``, which the caller closes; ``broker`` is a name to show."""
    server, config = build_server(parts)
    if options.late is not None:
        server.strategy.late_replies = options.late
    name = make_job_name() if options.job is None else check_job_name(options.job)
    with logging_about(job=name):
        return _take_and_run(transport, name, server, config, options, bus, broker, parts.callbacks)


def _take_and_run(
    transport: Transport,
    name: str,
    server: Server,
    config: ServerConfig,
    options: RunOptions,
    bus: EventBus,
    broker: str,
    callbacks: Sequence[Callback | RoundEnd],
) -> History:
    # Step 1: become the only server. A kill after this frees the lock with the connection.
    not_in_charge(options.vitals, name)
    taken = take_job(transport, name, options.coordinator.sites, standby=options.standby)
    # Step 2: raise the epoch in the journal. Any previous server is fenced from here on.
    run = open_run(name, options, server, config)
    in_charge(options.vitals, transport, run)
    if taken.begun and run.new and run.journal is not None:
        _say_anew(name, run.journal.folder, bus)
    try:
        with logging_about(run=run.job.run_id):
            if run.journal is not None:
                about = EventLogOptions(run.job.epoch, run.resumed, taken.waited)
                events = EventLog(run.journal.folder, about)
                bus.attach(events)
                bus.at_end(events.close)  # a run that fails early has no RunEnded
            return _run(transport, run, server, config, options, bus, broker, callbacks)
    finally:
        if run.journal is not None:
            run.journal.close()


def _run(
    transport: Transport,
    run: OpenRun,
    server: Server,
    config: ServerConfig,
    options: RunOptions,
    bus: EventBus,
    broker: str,
    given: Sequence[Callback | RoundEnd],
) -> History:
    job_journal = None if run.journal is None else JobJournal(run.journal)
    # The watcher needs proxies, which need the coordinator, which needs the watcher.
    presence = PresenceWatcher(
        server.client_manager(),
        lambda client_id: QueueClientProxy(client_id, coordinator),
        bus.emit,
        time.monotonic,
    )
    required = check_scalars(server.strategy.required_properties, "required_properties")
    how = replace(options.coordinator, required_properties=required)
    if run.journal is not None and how.spool_dir is None:
        how = replace(how, spool_dir=run.journal.spool_folder)
    late_policy = None
    if server.strategy.late_replies is LateReplies.NEXT_ROUND:
        cast = server.strategy.cast is not None
        late_policy = LateReplyPolicy(config.num_rounds, server.check_late, cast)
    records = None
    if run.journal is not None and job_journal is not None:
        records = Records(job_journal, ReplyJournal(run.journal, run.job))
    coordinator = Coordinator(transport, run.job, presence, bus.emit, how, records, late_policy)
    checkpointer = (
        None
        if job_journal is None
        else Checkpointer(
            job_journal, coordinator.planned, options.keep.best, _best_model(run, options)
        )
    )
    earlier = () if run.journal is None else past_rounds(run.journal, config.num_rounds)
    learned = Learned(earlier, bus.emit)
    callbacks = Callbacks(() if _is_finished(run) else given, bus.emit)
    for observer in callbacks.observers():
        bus.attach(observer)

    def emit(event: RunEvent) -> None:
        learned(event)
        if isinstance(event, RoundClosed):
            callbacks.round_ended(event, server.parameters)

    server.attach(
        coordinator,
        emit,
        seed=run.seed,
        policy=_policy(config),
        checkpointer=checkpointer,
        timeouts=config.round_timeout if callable(config.round_timeout) else None,
    )
    strategy = type(server.strategy).__name__
    folder = "" if run.journal is None else str(run.journal.folder)
    bus.emit(
        RunStarted(
            run.job.name, config.num_rounds, strategy, broker, earlier, folder, run.job.run_id
        )
    )
    if how.protection is not None:
        bus.emit(Note(f"end to end: {how.protection}"))
    _tell_waits(server, bus)
    logger.info("job %s: %d rounds of %s on %s", run.job.name, config.num_rounds, strategy, broker)
    if _is_finished(run):
        logger.warning(
            "job %s is finished: returning its result; --fresh begins it anew", run.job.name
        )
        bus.emit(Note("this job is finished: its result is returned, nothing is trained"))
    # Step 3: listen to clients, and run rounds.
    try:
        coordinator.start()
        listening(options.vitals, coordinator)
        return _run_to_its_end(
            server, config, coordinator, job_journal, bus, options.clients, learned, callbacks
        )
    finally:
        presence.close()


def _run_to_its_end(
    server: Server,
    config: ServerConfig,
    coordinator: Coordinator,
    job_journal: JobJournal | None,
    bus: EventBus,
    clients: int,
    learned: Learned,
    callbacks: Callbacks,
) -> History:
    """Run the remaining rounds; ``learned`` knows the results of earlier servers of the job."""
    job, started = coordinator.job.name, time.monotonic()
    finished = job_journal is not None and job_journal.finished
    try:
        if not finished:
            _tell_beginning(callbacks, job, config.num_rounds, job_journal, learned)
        if clients and not finished:
            server.client_manager().wait_for(clients, _DAY)
        timeout = None if callable(config.round_timeout) else config.round_timeout
        history, seconds = server.fit(0 if finished else config.num_rounds, timeout)
        loss, metrics = final_measurement(history)
        incomplete, stray = coordinator.losses
        early = server.stopped_early
        if job_journal is not None and finished:
            early = job_journal.stopped_early
        ended = RunEnded(
            job,
            server.rounds_closed,
            seconds + learned.seconds_before,
            final_loss=loss,
            final_metrics=metrics,
            parameters=server.parameters,
            incomplete_uploads=incomplete,
            stray_chunks=stray,
            unchanged=learned.why_not(),
            stopped_early=early,
        )
        # Before the job is finished, so that it is told again after a kill.
        callbacks.run_ended(ended)
    except BaseException as raised:
        error = raised if job_journal is None else job_journal.cause_of(raised)
        stopped = isinstance(error, KeyboardInterrupt)
        reason = _reason(error, server.rounds_closed)
        seconds = learned.seconds_before + time.monotonic() - started
        failed = RunEnded(job, server.rounds_closed, seconds, error=reason, stopped=stopped)
        callbacks.run_ended(failed)
        bus.emit(failed)
        _leave(coordinator, job_journal, error, reason)
        if error is raised:
            raise
        raise error from raised
    # Step 4: tell clients of the end, and only then mark the job finished: after a kill in between,
    # they are told again.
    coordinator.end(f"stopped early: {early}" if early else "all rounds done")
    crash_point("server.ended")
    if job_journal is not None and not finished:
        ending = {"rounds": ended.rounds, "seconds": ended.seconds, "loss": loss}
        job_journal.finish({**ending, **({"stopped_early": early} if early else {})})
    bus.emit(ended)
    return history


def _tell_beginning(
    callbacks: Callbacks,
    job: str,
    num_rounds: int,
    job_journal: JobJournal | None,
    learned: Learned,
) -> None:
    """Tell callbacks that the run begins or resumes, and of the last round that was closed again.

    The server that closed it may have died before they were told.
    """
    if not callbacks:
        return
    checkpoint = None if job_journal is None else job_journal.resume()
    callbacks.run_begins(job, num_rounds, 0 if checkpoint is None else checkpoint.server_round)
    if checkpoint is not None and learned.last is not None:
        callbacks.round_ended(learned.last, checkpoint.parameters)


def _best_model(run: OpenRun, options: RunOptions) -> BestModel | None:
    if run.journal is None or options.keep.best is None or _is_finished(run):
        return None
    return BestModel(run.journal, options.keep.best)


def _is_finished(run: OpenRun) -> bool:
    return run.journal is not None and run.journal.finished is not None


def _say_anew(job: str, folder: Path, bus: EventBus) -> None:
    said = (
        f"job {job} begins anew from round 1: its queues are on the broker, of a run that did not "
        f"end, but {folder} has no journal of it. If that run's folder is elsewhere, stop this "
        "server, and start it with that folder (--runs-dir)"
    )
    logger.warning(said)
    bus.emit(Note(said))


def _reason(error: BaseException, rounds: int) -> str:
    if isinstance(error, KeyboardInterrupt):
        return f"stopped after round {rounds}"
    return error_text(error)


def _tell_waits(server: Server, bus: EventBus) -> None:
    manager = server.client_manager()
    if isinstance(manager, SimpleClientManager):
        manager.on_wait = lambda needed, online: bus.emit(ClientsAwaited(needed, online))


def _leave(
    coordinator: Coordinator, job_journal: JobJournal | None, error: BaseException, reason: str
) -> None:
    """Leave an unfinished job: to a later server, if it has a journal."""
    job = coordinator.job.name
    if job_journal is None:
        stopped = isinstance(error, KeyboardInterrupt)
        coordinator.end(reason if stopped else f"failed: {reason}", patient=False)
        logger.warning(
            "job %s has no journal and ends here, as its clients were told; one with a name "
            "(job=...) could go on",
            job,
        )
        return
    coordinator.close()
    if not isinstance(error, Fenced | JournalGone):
        logger.warning("job %s is not finished; started again, its server goes on with it", job)


def final_measurement(history: History) -> tuple[float | None, dict[str, Scalar]]:
    """Return the last loss and metrics: the centralized ones if there are any."""
    if history.losses_centralized:
        losses, metrics = history.losses_centralized, history.metrics_centralized
    else:
        losses, metrics = history.losses_distributed, history.metrics_distributed
    loss = losses[-1][1] if losses else None
    return loss, {name: series[-1][1] for name, series in metrics.items() if series}


def _policy(config: ServerConfig) -> Policy:
    # If nobody is asked, the strategy still gets an empty closing set, as in Flower.
    return Policy(min_results=config.min_results or 0, target_results=config.target_results)
