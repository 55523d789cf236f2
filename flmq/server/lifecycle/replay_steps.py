"""Replay a run without rounds: the recorded sequence of buffers gives the same bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import cast

from flmq.common.errors import AggregationError
from flmq.common.phase import Phase
from flmq.common.typing import FitIns, FitRes, Parameters
from flmq.journal import Journal, NotKept
from flmq.journal.records import PhaseKey, RoundRow
from flmq.observe.past_rounds import buffer_of
from flmq.round import Outcome
from flmq.server.asks.queue_client_proxy import QueueClientProxy
from flmq.server.job.client_failure import ClientFailure
from flmq.server.job_identity import Job
from flmq.server.local_runner import LocalRunner
from flmq.server.resumption.job_journal import JobJournal
from flmq.server.resumption.reply_journal import ReplyJournal
from flmq.server.strategy.asynchronous import Asynchronous
from flmq.server.streams.buffer import Buffer
from flmq.wire import refer

__all__ = ["replayed_steps"]

_Step = tuple[int, int, str, str]
"""Its number, how many updates it has, and the digests of its model: recorded and replayed."""


def replayed_steps(
    journal: Journal, strategy: Asynchronous, rows: Sequence[RoundRow]
) -> Iterator[_Step]:
    """Make every step again whose replies, and whose model before it, are on disk.

    A strategy with a state of its own goes from step to step with it, so it is replayed from the
    first step on, and no further than the first whose replies were not kept.
    """
    recorded = {row.server_round: str(row.summary["model"]) for row in rows}
    model: Parameters | None = None
    for row in rows:
        before = recorded.get(row.server_round - 1)
        if before is None:
            continue
        if model is None or refer(model).digest != before:
            model = _kept_model(journal, row.server_round, before)
        buffer = None if model is None else _filled(journal, strategy, row, model)
        if model is None or buffer is None:
            model = None
            if strategy.state_dict():
                return
            continue
        strategy.global_parameters = model
        with contextlib.suppress(AggregationError):  # then the model stayed
            model = buffer.aggregate()[0] or model
        replayed = refer(model).digest
        updates = sum(each.weight > 0 for each in buffer_of(row))
        yield row.server_round, updates, recorded[row.server_round], replayed


def _filled(
    journal: Journal, strategy: Asynchronous, row: RoundRow, model: Parameters
) -> Buffer | None:
    """Return the buffer of a step, filled from the record; None if it is not on disk."""
    buffer = Buffer(strategy, row.server_round, model)
    for update in buffer_of(row):
        if update.weight == 0:
            continue
        key = PhaseKey(update.server_round, Phase.FIT, update.call)
        answer = _answer(journal, key)
        if answer is None:
            return None
        client = QueueClientProxy(update.client_id, LocalRunner([], None))
        buffer.add(key, client, *answer)
    why = "as recorded"
    buffer.failures += [
        ClientFailure("", Outcome.FAILED, why) for _ in range(row.summary.get("failures", 0))
    ]
    return buffer


def _answer(journal: Journal, key: PhaseKey) -> tuple[FitRes, Parameters] | None:
    """Return a client's reply, and the model that it was trained from; None if not kept."""
    assert journal.identity is not None
    try:
        planned = JobJournal(journal).planned(key)
    except NotKept:
        return None
    identity = journal.identity
    job = Job(identity.name, identity.run_id, identity.secret, epoch=0)
    for each in ReplyJournal(journal, job).replies(key):
        if planned is not None and isinstance(each.reply.res, FitRes):
            return each.reply.res, cast(FitIns, planned.asks[0].ins).parameters
    return None


def _kept_model(journal: Journal, number: int, digest: str) -> Parameters | None:
    """Return the model before a step, from a request or a checkpoint; None if not kept."""
    for key in journal.phases.closed_calls(number, Phase.FIT):
        answer = _answer(journal, key) if key.is_streamed else None
        if answer is not None and refer(answer[1]).digest == digest:
            return answer[1]
    kept = {info.digest for info in journal.checkpoints()}
    return journal.parameters(digest) if digest in kept else None
