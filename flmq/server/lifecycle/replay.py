"""Replay a run's record without clients: the same closing sets give the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flmq.common.errors import UsageError
from flmq.common.parameter import with_parameters
from flmq.common.phase import Phase
from flmq.common.typing import FitIns, FitRes, Parameters
from flmq.journal import JobIdentity, Journal, NotKept
from flmq.journal.records import PhaseKey, PhaseRecord
from flmq.round import Outcome
from flmq.server.asks.queue_client_proxy import QueueClientProxy
from flmq.server.client_proxy import ClientProxy
from flmq.server.job.client_failure import ClientFailure
from flmq.server.job_identity import Job
from flmq.server.lifecycle.replay_steps import replayed_steps
from flmq.server.local_runner import LocalRunner
from flmq.server.replies.sums import recorded_mean
from flmq.server.resumption.job_journal import JobJournal
from flmq.server.resumption.reply_journal import ReplyJournal
from flmq.server.strategy.asynchronous import Asynchronous
from flmq.server.strategy.casting import cast_like
from flmq.server.strategy.combine import WeightedMean
from flmq.server.strategy.late import merged
from flmq.server.strategy.regional import why_whole
from flmq.server.strategy.reply_check import spec_of
from flmq.server.strategy.strategy import Strategy
from flmq.server.strategy.streaming import StreamedResults, says_it_streams
from flmq.wire import refer

__all__ = ["AddedUpBySites", "NeedsItsStrategy", "NothingToReplay", "Replayed", "replay"]


class NothingToReplay(UsageError):
    """The replies of no round were kept."""

    def __init__(self, job: str) -> None:
        """Name the job."""
        self.job = job
        super().__init__(
            f"no replies of job {job!r} are on disk: they go when their round is over, unless the "
            "server is started with --keep-replies"
        )


class NeedsItsStrategy(UsageError):
    """A run without rounds is to be replayed with a strategy of rounds."""

    def __init__(self, job: str, strategy: str) -> None:
        """Name the job and the strategy of the replay."""
        super().__init__(
            f"job {job!r} ran without rounds, and {strategy} runs rounds: name the server's app, "
            "as in --app app:server"
        )


class AddedUpBySites(UsageError):
    """Sums of replies are to be combined by a strategy that needs each reply."""

    def __init__(self, server_round: int, why: str) -> None:
        """Name the round, and say ``why`` the strategy cannot have its sums."""
        super().__init__(
            f"round {server_round} has replies that sites' aggregators added up, and {why}: "
            "replay it with the strategy of the run, as in --app app:server"
        )


@dataclass(frozen=True, slots=True)
class Replayed:
    """A round that was aggregated again."""

    server_round: int
    replies: int
    recorded: str
    """Digest of the model that the run made."""
    replayed: str
    """Digest of the replayed model."""

    @property
    def same(self) -> bool:
        """Whether both models are the same, bit for bit."""
        return self.recorded == self.replayed


def replay(journal: Journal, strategy: Strategy) -> Iterator[Replayed]:
    """Aggregate every round whose replies are on disk again, with ``strategy``.

    Raises:
        NothingToReplay: there is no such round.
        NeedsItsStrategy: the run was without rounds, and ``strategy`` is not.
    """
    rows = [row for row in journal.rounds() if row.done and row.summary.get("model")]
    recorded = {row.server_round: row.summary["model"] for row in rows}
    found = False
    if any(row.summary.get("buffer") for row in rows):
        for step in replayed_steps(journal, _asynchronous(journal, strategy), rows):
            found = True
            yield Replayed(*step)
        recorded = {}
    for server_round, digest in sorted(recorded.items()):
        record = _fit_phase(journal, server_round)
        if record is None:
            continue
        found = True
        closed = record.closed
        replies = 0 if closed is None else len(closed.accepted) + len(closed.carried)
        strategy.load_state_dict(record.plan.state)
        before = recorded.get(server_round - 1)
        strategy.global_parameters = _trained_from(journal, record, strategy, before)
        yield Replayed(server_round, replies, str(digest), _again(journal, record, strategy))
    if not found:
        assert journal.identity is not None
        raise NothingToReplay(journal.identity.name)


def _asynchronous(journal: Journal, strategy: Strategy) -> Asynchronous:
    if isinstance(strategy, Asynchronous):
        return strategy
    assert journal.identity is not None
    raise NeedsItsStrategy(journal.identity.name, type(strategy).__name__)


def _fit_phase(journal: Journal, server_round: int) -> PhaseRecord | None:
    try:
        record = journal.phases.find(PhaseKey(server_round, Phase.FIT))
    except NotKept:
        return None
    return record if record is not None and record.closed is not None else None


def _trained_from(
    journal: Journal, record: PhaseRecord, strategy: Strategy, digest: str | None
) -> Parameters:
    """Return the round's global model, from its requests or checkpoints; empty if not kept."""
    planned = JobJournal(journal).planned(record.key)
    for ask in () if planned is None else planned.asks:
        if isinstance(ask.ins, FitIns):
            model = strategy.global_model(ask.ins.parameters)
            if refer(model).digest == digest:
                return model
    kept = {info.digest for info in journal.checkpoints()}
    return journal.parameters(digest) if digest in kept else Parameters([], "numpy.ndarray")


def _again(journal: Journal, record: PhaseRecord, strategy: Strategy) -> str:
    """Return the digest of what the strategy makes of a recorded closing set."""
    assert journal.identity is not None
    nobody = LocalRunner([], None)
    replies = ReplyJournal(journal, _job(journal.identity))
    sums = replies.sums(record.key)
    results: list[tuple[ClientProxy, FitRes]] = [
        (QueueClientProxy(each.reply.client_id, nobody), each.reply.res)
        for each in replies.replies(record.key)
        if isinstance(each.reply.res, FitRes) and each.ask in _accepted(record)
    ]
    assert record.closed is not None
    late = [
        (QueueClientProxy(each.ref.client_id, nobody), each.res)
        for each in replies.carried_into(record.key) or ()
    ]
    results = merged(results, late)
    if strategy.cast is not None:
        # Those that came before their phase was open again are in the record as they came.
        results = [(client, _cast(res, strategy.global_parameters)) for client, res in results]
    if sums:
        means = [recorded_mean(parameters) for parameters, _ in sums.values()]
        results = _with_sums(record.key.server_round, strategy, results, means)
    failures: list[tuple[ClientProxy, FitRes] | BaseException] = [
        ClientFailure(outcome.client_id, outcome.outcome, outcome.reason)
        for outcome in record.closed.outcomes
        if outcome.outcome is not Outcome.ACCEPTED
    ]
    parameters, _ = strategy.aggregate_fit(record.key.server_round, results, failures)
    return "no model" if parameters is None else refer(parameters).digest


def _with_sums(
    server_round: int,
    strategy: Strategy,
    results: list[tuple[ClientProxy, FitRes]],
    means: list[WeightedMean],
) -> StreamedResults:
    """Return a round's results as its server had them: what came by itself, and sums of others.

    Raises:
        AddedUpBySites: the strategy needs each reply.
    """
    combine = None
    if says_it_streams(strategy):
        combine = strategy.combine(server_round, strategy.global_parameters)
    why = why_whole(strategy, combine)
    if why or not isinstance(combine, WeightedMean):
        raise AddedUpBySites(server_round, why)
    for client, res in results:
        if res.parameters.tensors:  # the others' are in a sum
            combine.add(client.cid, res)
    for mean in means:
        combine.merge(mean)
    return StreamedResults(results, combine)


def _accepted(record: PhaseRecord) -> frozenset[str]:
    return frozenset() if record.closed is None else frozenset(record.closed.accepted)


def _job(identity: JobIdentity) -> Job:
    return Job(identity.name, identity.run_id, identity.secret, epoch=0)


def _cast(res: FitRes, model: Parameters) -> FitRes:
    fitted = cast_like(spec_of(model), res.parameters)
    return res if isinstance(fitted, str) else with_parameters(res, fitted)
