"""The server of asynchronous strategies: C clients are busy, and every K updates make a step.

Buffered asynchronous aggregation (Nguyen et al., 2022, arXiv:2106.06639; with a buffer of one,
Xie et al., 2019, arXiv:1903.03934). The model is a function of the recorded sequence of buffers:
which updates were in which, each with the model it was trained from. The order within a buffer does
not matter. All of it is in the job's journal, so that a killed server, a standby, or a replay makes
the same bits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from flmq.common.errors import AggregationError, UsageError
from flmq.common.phase import Phase
from flmq.common.typing import FitIns, FitRes
from flmq.observe.events import BufferChanged, Note
from flmq.round import Outcome
from flmq.server.asks.queue_client_proxy import QueueClientProxy
from flmq.server.asks.stream import Answer, AskStream
from flmq.server.client_proxy import ClientProxy
from flmq.server.history import History
from flmq.server.job.client_failure import ClientFailure
from flmq.server.job.request import PhaseResult
from flmq.server.local_runner import LocalRunner
from flmq.server.strategy import validation as returned
from flmq.server.strategy.asynchronous import Asynchronous
from flmq.server.strategy.late import LateReplies
from flmq.server.stream_server import StreamServer
from flmq.server.streams.buffer import Buffer
from flmq.server.streams.idle_clients import IdleClients
from flmq.server.streams.rests import Rests
from flmq.wire import Ins, Res

__all__ = ["DROPPED", "AsynchronousServer", "NoLateReplies"]

DROPPED = "dropped_staleness"
"""Key in the config of a client's next task: how stale its last update was, which was dropped."""
_STALE = "too stale"
_LOOK_EVERY = 1.0  # seconds


class NoLateReplies(UsageError):
    """Late replies are to count in the next round, in a run without rounds."""

    def __init__(self) -> None:
        """Say what to do instead."""
        super().__init__(
            "late replies cannot count in a run without rounds, in which a late client is asked "
            "anew: drop --late (late_replies), or give a longer round_timeout, or none"
        )


class AsynchronousServer(StreamServer):
    """Runs an `Asynchronous` strategy; ``num_rounds`` counts its steps."""

    def fit(self, num_rounds: int, timeout: float | None) -> tuple[History, float]:
        """Run until the model has made ``num_rounds`` steps; each ask has ``timeout`` seconds.

        Raises:
            NotEnoughClients: too few clients came in time.
            EverybodyFails: the training of every client fails, again and again.
            NoLateReplies: late replies are to count.
        """
        if self.strategy.late_replies is LateReplies.NEXT_ROUND:
            raise NoLateReplies
        return super().fit(num_rounds, timeout)

    def run(self, stream: AskStream, num_rounds: int) -> None:
        """Keep clients busy, and make a step of every full buffer."""
        self._rests = Rests(self._clock)
        self._dropped: dict[str, int] = {}
        self._online: dict[str, ClientProxy] = {}
        self._shown: BufferChanged | None = None
        if not stream.busy:
            self._wait_for(self._plan.min_available_clients)
        while self.rounds_closed < num_rounds:
            number = self.rounds_closed + 1
            self._phases.begin(number, Phase.FIT)
            self._tell_model()
            self._failed: set[str] = set()
            buffer = Buffer(self._plan, number, self.parameters)
            while not buffer.is_full:
                self._keep_busy(stream, buffer)
                self._show(stream, buffer)
                answer = stream.take(self._patience(stream))
                if answer is not None:
                    self._take(answer, buffer)
                if answer is not None and answer.res is None:
                    self._rests.check(self._here(stream), self._plan.max_failures)
            self._step(buffer, num_rounds)

    @property
    def _plan(self) -> Asynchronous:
        return cast(Asynchronous, self.strategy)

    # -- asking ------------------------------------------------------------------------------

    def _keep_busy(self, stream: AskStream, buffer: Buffer) -> None:
        """Ask idle clients, until as many are busy as are wanted of those that are online."""
        self._online = self.client_manager().all()
        if not self._online and not stream.busy:
            self._wait_for(1)
        busy = stream.busy
        places = self._plan.concurrency - len(self._online.keys() & busy)
        if places <= 0:
            return
        free = self._online.keys() - busy - self._rests.resting()
        if not free:
            return
        idle = IdleClients(
            self.client_manager(), {cid: self._online[cid] for cid in sorted(free)}, places
        )
        chosen = self._plan.configure_fit(buffer.number, self.parameters, idle)
        asks = returned.checked_instructions(self._named("configure_fit"), chosen, FitIns)
        if not asks and not busy and self._log.note != self._phases.why_nobody("configure_fit"):
            self._note(buffer.number, self._phases.why_nobody("configure_fit"))
        for client, ins in asks:
            if client.cid in self._dropped:
                ins = replace(ins, config={**ins.config, DROPPED: self._dropped[client.cid]})
            stream.ask(client.cid, ins, buffer.number)
            self._dropped.pop(client.cid, None)

    def _wait_for(self, clients: int) -> None:
        """Wait until so many clients are there, who are chosen from; says whom it waits for."""
        criterion = self._plan.criterion
        chosen_by = {} if criterion is None else {"criterion": criterion}
        self.client_manager().sample(0, clients, **chosen_by)

    def _here(self, stream: AskStream) -> frozenset[str]:
        """Return the clients on which the next step depends: online, or at work."""
        return frozenset(self._online) | stream.busy

    def _patience(self, stream: AskStream) -> float:
        """Return after how many seconds somebody may be there to ask, whoever answers."""
        rest = self._rests.until_next()
        return _LOOK_EVERY if rest is None else min(_LOOK_EVERY, rest)

    # -- taking ------------------------------------------------------------------------------

    def _check_ask(self, server_round: int, ins: Ins, res: Res) -> str | None:
        """Refuse an update that is too stale when it comes, so that its receipt says so."""
        most, stale = self._plan.max_staleness, self.rounds_closed + 1 - server_round
        if most is not None and stale > most:
            return _too_stale(stale, most)
        return super()._check_ask(server_round, ins, res)

    def _take(self, answer: Answer, buffer: Buffer) -> None:
        """Add an answer to the buffer, or note why it does not count."""
        assert answer.key is not None
        assert answer.result is not None
        key, client_id, most = answer.key, answer.client_id, self._plan.max_staleness
        stale, result = buffer.staleness(key), answer.result
        if _refused_as_stale(answer) or (
            answer.res is not None and most is not None and stale > most
        ):
            buffer.drop(key, client_id)
            self._dropped[client_id] = stale
            if answer.res is not None:  # the receipt could not say it: the model stepped since
                self._note_client(buffer, client_id, _too_stale(stale, most or 0))
                result = _not_counted(result)
        elif answer.res is None:
            self._fail(answer, buffer, _why(answer))
        else:
            try:
                base = cast(FitIns, answer.ins).parameters
                buffer.add(key, self._proxy(client_id), cast(FitRes, answer.res), base)
                self._rests.succeeded(client_id)
            except AggregationError as error:
                self._note_client(buffer, client_id, str(error))
                self._fail(answer, buffer, str(error))
                result = _not_counted(result)
        self._log.add_fit(result)

    def _fail(self, answer: Answer, buffer: Buffer, why: str) -> None:
        self._failed.add(answer.client_id)
        buffer.failures.append(_as_failure(answer, self._proxy(answer.client_id), why))
        if not answer.again:  # what failed under an earlier server may be mended by now
            self._rests.failed(answer.client_id, why)

    def _proxy(self, client_id: str) -> ClientProxy:
        here = self._online.get(client_id)
        return here or QueueClientProxy(client_id, self._phases.runner or LocalRunner([], None))

    # -- stepping ----------------------------------------------------------------------------

    def _step(self, buffer: Buffer, num_rounds: int) -> None:
        number = buffer.number
        self._log.buffer, self._log.failures = tuple(buffer.updates), len(buffer.failures)
        self._phases.note_failures(number, self._failed)
        self._phases.step(number, "aggregate fit")
        try:
            model, metrics = buffer.aggregate()
        except AggregationError as error:
            self._note(number, f"the model stays as it was: {error}")
            self.step(None, num_rounds)
            return
        if model is None:
            failed = f" ({len(buffer.failures)} asks failed)" if buffer.failures else ""
            self._note(number, f"the model stays as it was: aggregate_fit returned none{failed}")
        self._history.add_metrics_distributed_fit(number, metrics)
        self._log.fit_metrics = metrics
        self.step(model, num_rounds)

    def _evaluate_by_clients(self, number: int) -> None:
        """Let clients evaluate the model after every few steps; those at work do it after that."""
        every = self._plan.evaluate_every
        if not every or number % every:
            return
        loss, metrics, _ = self.evaluate_round(number, self._timeout) or (None, {}, None)
        if loss is not None:
            self._history.add_loss_distributed(number, loss)
            self._history.add_metrics_distributed(number, metrics)
            self._log.measured(loss, metrics)

    # -- telling -----------------------------------------------------------------------------

    def _show(self, stream: AskStream, buffer: Buffer) -> None:
        state = BufferChanged(
            buffer.number,
            self._plan.buffer_size,
            tuple(buffer.updates),
            tuple(sorted(stream.busy)),
            tuple(sorted(self._rests.resting())),
        )
        if state != self._shown:
            self._shown = state
            self._emit(state)

    def _note_client(self, buffer: Buffer, client_id: str, text: str) -> None:
        self._emit(Note(f"the update of {client_id} does not count: {text}", buffer.number))


def _too_stale(stale: int, most: int) -> str:
    return (
        f"{_STALE}: the model made {stale} steps while this client trained, and max_staleness is "
        f"{most}; it is asked anew"
    )


def _refused_as_stale(answer: Answer) -> bool:
    """Return whether a reply was refused on arrival; only the server rejects."""
    failure = answer.failure
    return (
        isinstance(failure, ClientFailure)
        and failure.outcome is Outcome.REJECTED
        and failure.reason.startswith(_STALE)
    )


def _why(answer: Answer) -> str:
    failure = answer.failure
    if isinstance(failure, ClientFailure):
        return f"{failure.outcome.value}: {failure.reason}"
    return "it said that it could not" if failure is not None else "no answer"


def _as_failure(
    answer: Answer, client: ClientProxy, why: str
) -> tuple[ClientProxy, FitRes] | BaseException:
    """Return a failure as `aggregate_fit` takes it."""
    match answer.failure:
        case ClientFailure():
            return answer.failure
        case (_, FitRes() as res):
            return client, res
    return ClientFailure(answer.client_id, Outcome.REJECTED, why)


def _not_counted(result: PhaseResult) -> PhaseResult:
    """Return the figures of an accepted reply that does not count after all."""
    counts = result.counts
    return replace(result, counts=replace(counts, accepted=0, rejected=counts.accepted))
