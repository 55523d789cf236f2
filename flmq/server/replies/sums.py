"""Check the partial sums of aggregators, whole: each counts with all its answers, or is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hmac import compare_digest

from flmq.common.errors import MalformedMessage, StoredDataError
from flmq.common.logger import logger
from flmq.common.parameter import parameters_of
from flmq.common.times import TaskTimes
from flmq.common.typing import Parameters
from flmq.messaging import Incoming
from flmq.observe.events import PartialSumCame
from flmq.round import PhaseKey, ReplyAccepted, ReplyFailed, ReplyRejected, client_of
from flmq.round.fates import SumFate
from flmq.round.job_events import Claim, Origin, SumCame, SumEntry
from flmq.server.job.phase_in_flight import PhaseInFlight
from flmq.server.job.regional_order import RegionalOrder
from flmq.server.job_identity import Job
from flmq.server.replies.reply_edges import InHand, ReplyEdges
from flmq.server.replies.task_directory import TaskDirectory
from flmq.server.strategy.combine import WeightedMean
from flmq.server.strategy.partial_sum import PartialRefused, entries_of, mean_of
from flmq.server.strategy.reply_check import spec_of
from flmq.wire import (
    EntryOutcome,
    FileParameters,
    PartialEntry,
    PartialSum,
    Reply,
)
from flmq.wire.entries import read_entries
from flmq.wire.failures import why_failed

__all__ = ["SumInHand", "Sums", "identity_problem", "largest_sum", "recorded_mean"]

_BYTES_AN_ELEMENT = 40
"""Of an accumulator: usually 8, and 16 or 24 where magnitudes or weights differ much."""
_BYTES_AN_ENTRY = 64 << 10
_BESIDES = 16 << 20


@dataclass(slots=True)
class SumInHand:
    """A partial sum in progress."""

    sum: PartialSum
    key: PhaseKey
    site: str
    """The aggregator's, as it was ordered."""
    size: int
    """Bytes received for it."""
    at: float
    """When it came, in monotonic seconds."""
    incoming: Incoming | None = None
    """The message to ack. None: nothing to ack."""
    received_ms: int = 0
    """When it came, in Unix ms."""
    origin: Origin = Origin.QUEUE
    problem: str = ""
    """Why it cannot count; empty: nothing is known against it."""
    entries: tuple[SumEntry, ...] | None = None
    """None: not read yet."""
    mean: WeightedMean | None = None


class Sums:
    """The partial sums in the reply loop's hands."""

    def __init__(
        self,
        tasks: TaskDirectory,
        edges: ReplyEdges,
        in_hand: dict[int, InHand],
        tokens: Iterator[int],
    ) -> None:
        """Look orders up in ``tasks``; put each answer among the replies ``in_hand``."""
        self._tasks = tasks
        self._edges = edges
        self._replies = in_hand
        self._tokens = tokens
        self._in_hand: dict[int, SumInHand] = {}

    def __contains__(self, token: object) -> bool:
        """Return whether a token is that of a sum."""
        return token in self._in_hand

    def __getitem__(self, token: int) -> SumInHand:
        """Return the sum with this token."""
        return self._in_hand[token]

    def named(self, token: int) -> tuple[PartialSum, str]:
        """Return a sum, and the site of its aggregator."""
        hand = self._in_hand[token]
        return hand.sum, hand.site

    def release(self, token: int) -> SumInHand:
        """Forget a sum and its answers, and return it."""
        hand = self._in_hand.pop(token)
        for each in hand.entries or ():
            self._replies.pop(each.token, None)
        return hand

    def take(self, partial: PartialSum, size: int, incoming: Incoming | None, problem: str) -> int:
        """Take in a sum that answers a known order; return its token.

        ``problem``: why it cannot count, if that is known.

        Raises:
            SpoolFailed: the server's own disk cannot store it.
        """
        found = self._tasks.order_of(partial.task_id)
        assert found is not None, "the listener looked the order up"
        key, site = found
        plain = partial.blob is None and not isinstance(partial.parameters, FileParameters)
        if plain and not problem:
            partial = self._edges.store_sum(partial)
        token, now = next(self._tokens), self._edges.clock()
        self._in_hand[token] = SumInHand(
            partial, key, site, size, now, incoming, self._edges.now_ms(), problem=problem
        )
        return token

    def restore(
        self,
        partial: PartialSum,
        key: PhaseKey,
        size: int,
        answers: Sequence[tuple[Reply, Claim, TaskTimes | None]],
    ) -> SumCame:
        """Register a sum from the record with its answers, in order; return the event to feed.

        Each answer comes with the course of its task, if that is recorded.

        Raises:
            StoredDataError: what the record has of it is damaged.
        """
        token, now = next(self._tokens), self._edges.clock()
        hand = SumInHand(partial, key, partial.site, size, now, origin=Origin.RECORD)
        hand.mean = recorded_mean(partial.parameters)
        hand.entries = tuple(
            SumEntry(self._register(reply, hand, times), reply.task_id, claim)
            for reply, claim, times in answers
        )
        self._in_hand[token] = hand
        order, fate = partial.task_id, SumFate.SETTLES
        return SumCame(token, order, key, hand.entries, fate, now, Origin.RECORD)

    def _register(self, reply: Reply, of: SumInHand, times: TaskTimes | None = None) -> int:
        token, order_id = next(self._tokens), of.sum.task_id
        self._replies[token] = InHand(
            reply,
            0,
            of.at,
            None,
            of.origin,
            order_id=order_id,
            received_ms=of.received_ms,
            times=times,
        )
        return token

    def merge(self, key: PhaseKey, token: int) -> None:
        """Hand a sum that counts to its phase, and tell observers."""
        hand, phase = self._in_hand[token], self._tasks.phase(key)
        assert phase is not None
        phase.merge(hand.site, hand.mean, hand.size, self._tasks.lock)
        hand.mean = None
        with self._tasks.lock:
            if (order := phase.orders.get(hand.sum.task_id)) is not None:
                order.is_taken = True
        counted = [isinstance(each.claim, ReplyAccepted) for each in hand.entries or ()]
        self._edges.emit(_described(hand, counted))

    def refuse(self, key: PhaseKey, token: int, reason: str) -> None:
        """Do not count a sum: whoever waits for its phase asks its site's clients directly."""
        hand, phase = self._in_hand[token], self._tasks.phase(key)
        assert phase is not None
        with self._tasks.lock:
            order = phase.orders.get(hand.sum.task_id)
            if order is not None and order.is_open:
                order.refused = f"its partial sum is refused: {reason}"
            phase.wake.set()
        logger.warning(
            "%s: the partial sum of the aggregator of %s is refused: %s",
            phase.label,
            hand.site,
            reason,
        )
        self._edges.emit(_described(hand, (), refused=reason))

    def judge(self, token: int) -> SumCame:
        """Return the event to feed for a sum, read and checked as far as its fate requires."""
        hand = self._in_hand[token]
        phase = self._tasks.phase(hand.key)
        order = None if phase is None else phase.orders.get(hand.sum.task_id)
        if phase is not None and not hand.problem and hand.origin is Origin.QUEUE:
            assert self._edges.job is not None
            hand.problem = identity_problem(hand.sum, self._edges.job, phase)
        if hand.entries is None and not hand.problem and phase is not None:
            if order is None:
                hand.problem = "its order is an earlier server's, and aggregators are switched off"
            else:
                self._read(hand, phase, order)
        entries = hand.entries or ()
        with self._tasks.lock:
            if not hand.problem and order is not None and order.refused:
                hand.problem = f"its site's clients were asked directly: {order.refused}"
            tasks = [each.task_id for each in entries]
            fate = self._tasks.state.fate_of_sum(hand.sum.task_id, hand.key, tasks)
        if fate is SumFate.SETTLES and hand.mean is None and not hand.problem:
            assert phase is not None
            self._add_up(hand, phase)
        return SumCame(
            token,
            hand.sum.task_id,
            hand.key,
            entries,
            fate,
            hand.at,
            hand.origin,
            hand.problem,
        )

    def _read(self, hand: SumInHand, phase: PhaseInFlight, order: RegionalOrder) -> None:
        asked = {task: client_of(ask) for task, ask in order.asks.items()}
        try:
            listed = entries_of(hand.sum.parameters, asked)
        except PartialRefused as error:
            hand.problem = f"it {error}"
            return
        hand.entries = tuple(
            SumEntry(
                self._register(_reply(hand.sum, each), hand),
                each.task_id,
                _claim(order.asks[each.task_id], each),
            )
            for each in listed
        )

    def _add_up(self, hand: SumInHand, phase: PhaseInFlight) -> None:
        """Read the accumulator, which must fit what was sent and what the entries say."""
        parameters, sent = hand.sum.parameters, _sent(phase)
        try:
            model = None if sent is None else spec_of(sent).specs
            hand.mean = mean_of(parameters, read_entries(parameters.tensors[1]), model)
        except (PartialRefused, MalformedMessage) as error:
            hand.problem = f"it {error}"


def identity_problem(partial: PartialSum, job: Job, phase: PhaseInFlight | None) -> str:
    """Return why a sum is not of its order; empty if it is.

    Its epoch may be that of an earlier server, whose order it answers, if that one planned the
    phase or came after: before that, clients may have been sent another model.
    """
    if not compare_digest(partial.nonce, job.nonce(partial.task_id)):
        return "it does not have its order's nonce"
    if (partial.job, partial.run) != (job.name, job.run_id):
        return f"it is of job {partial.job}, run {partial.run}"
    first = 0 if phase is None else phase.planned_epoch or job.epoch
    if not first <= partial.epoch <= job.epoch:
        return f"it is of epoch {partial.epoch}, and its order of {first} to {job.epoch}"
    if phase is None:
        return ""
    order, key = phase.orders.get(partial.task_id), phase.key
    if (partial.server_round, partial.phase) != (key.server_round, key.phase):
        return f"it is of round {partial.server_round}, {partial.phase.value}"
    if order is not None and partial.site != order.site:
        return f"it is of site {partial.site}, and its order of {order.site}"
    return ""


def recorded_mean(parameters: Parameters) -> WeightedMean:
    """Return the mean in a partial sum that a record has.

    Raises:
        StoredDataError: it is damaged.
    """
    try:
        return mean_of(parameters, read_entries(parameters.tensors[1]))
    except (PartialRefused, MalformedMessage) as error:
        raise StoredDataError(f"a partial sum in the record is damaged: {error}") from error


def largest_sum(phase: PhaseInFlight, order: RegionalOrder) -> int:
    """Return the most bytes that the sum answering an order may have."""
    sent = _sent(phase)
    elements = 0 if sent is None else sum(spec.size for spec in spec_of(sent).specs)
    return _BYTES_AN_ELEMENT * elements + _BYTES_AN_ENTRY * len(order.asks) + _BESIDES


def _sent(phase: PhaseInFlight) -> Parameters | None:
    """Return what all clients of a phase with orders were sent."""
    ask = next(iter(phase.asks.values()), None)
    return None if ask is None else parameters_of(ask.ins)


def _described(hand: SumInHand, counted: Sequence[bool], *, refused: str = "") -> PartialSumCame:
    """Return the event that tells observers of a sum; ``counted``: for each answer, if it does."""
    key, size = hand.key, hand.size
    return PartialSumCame(
        key.server_round, key.phase, hand.site, len(counted), sum(counted), size, refused
    )


def _claim(ask: str, entry: PartialEntry) -> Claim:
    match entry.outcome:
        case EntryOutcome.ACCEPTED:
            return ReplyAccepted(ask)
        case EntryOutcome.FAILED:
            return ReplyFailed(ask, why_failed(entry.res) or "")
        case EntryOutcome.REJECTED:
            return ReplyRejected(ask, entry.reason)


def _reply(partial: PartialSum, entry: PartialEntry) -> Reply:
    """Return a client's reply as an entry tells it: without its parameters."""
    return Reply(
        task_id=entry.task_id,
        job=partial.job,
        server_round=partial.server_round,
        phase=partial.phase,
        client_id=entry.client_id,
        epoch=partial.epoch,
        nonce=b"",
        seconds=entry.seconds,
        res=entry.res,
        times=entry.times,
    )
