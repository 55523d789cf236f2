"""The server's loop: rounds of fit and evaluate, as in Flower."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import cast

from flmq.common.errors import AggregationError
from flmq.common.logger import logger
from flmq.common.parameter import named_like
from flmq.common.phase import Phase
from flmq.common.typing import (
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Parameters,
    ReconnectIns,
    Scalar,
)
from flmq.observe.events import Note, RunEvent
from flmq.round import Policy
from flmq.server.asks.failure_summary import split, why
from flmq.server.asks.queue_client_proxy import PhaseRunner
from flmq.server.client_manager import ClientManager
from flmq.server.history import History
from flmq.server.job.request import accept_anything
from flmq.server.resumption.checkpointer import Checkpointer
from flmq.server.rhythm.deadlines import TimeoutByRound
from flmq.server.rhythm.early_stopping import never
from flmq.server.rounds.calling import (
    EvaluateResultsAndFailures,
    FitResultsAndFailures,
    evaluate_client,
    evaluate_clients,
    fit_client,
    fit_clients,
)
from flmq.server.rounds.initial_parameters import initial_parameters
from flmq.server.rounds.phases import Phases
from flmq.server.rounds.round_log import RoundLog
from flmq.server.strategy import validation as returned
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.reply_check import ParametersSpec, check_evaluate_reply, check_fit_reply
from flmq.server.strategy.strategy import Strategy
from flmq.server.strategy.streaming import StreamedResults, says_it_streams
from flmq.wire import Ins, Res

__all__ = [
    "EvaluateResultsAndFailures",
    "FitResultsAndFailures",
    "Server",
    "evaluate_client",
    "evaluate_clients",
    "fit_client",
    "fit_clients",
]


class Server:
    """Run rounds with a strategy over the clients of a ``client_manager``.

    Used directly, it calls its proxies in this process; `start_server` attaches it to a job on a
    broker.
    """

    def __init__(
        self,
        *,
        client_manager: ClientManager,
        strategy: Strategy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use ``strategy``, or `FedAvg` with its defaults; ``clock`` gives seconds."""
        self._client_manager = client_manager
        self.parameters = Parameters(tensors=[], tensor_type="numpy.ndarray")
        self.strategy: Strategy = FedAvg() if strategy is None else strategy
        self.initial_parameters: Parameters | None = None
        """The initial model, if it is not the strategy's; released when the run begins."""
        self.max_workers: int | None = None
        self.rounds_closed = 0
        self._phases = Phases(client_manager)
        self._clock = clock
        self._checkpointer: Checkpointer | None = None
        self._emit: Callable[[RunEvent], None] = lambda event: None
        self._log = RoundLog.begin(self._clock)
        self.stop_rule: Callable[[History], str] = never
        """Returns why to stop after a round, or "" to go on."""
        self.stopped_early = ""
        """Why the run stopped before its last round; "" if it did not."""

    def attach(
        self,
        phase_runner: PhaseRunner,
        emit: Callable[[RunEvent], None],
        *,
        seed: int,
        policy: Policy,
        checkpointer: Checkpointer | None = None,
        timeouts: TimeoutByRound | None = None,
    ) -> None:
        """Ask clients through ``phase_runner``, and report events to ``emit``.

        ``seed`` is the job's: with the round and the phase it determines which clients are chosen.
        With a ``checkpointer``, `fit` resumes where an earlier server of the job stopped.
        ``timeouts`` returns how many seconds a phase of a round has, in place of one number.
        """
        self._phases.attach(
            phase_runner, seed=seed, policy=policy, checkpointer=checkpointer, timeouts=timeouts
        )
        self._checkpointer = checkpointer
        self._emit = emit

    def set_max_workers(self, max_workers: int | None) -> None:
        """Limit the threads that call proxies directly; no effect on a broker."""
        self.max_workers = max_workers

    def set_strategy(self, strategy: Strategy) -> None:
        """Replace the strategy; takes effect at its next call."""
        self.strategy = strategy

    def client_manager(self) -> ClientManager:
        """Return the client manager."""
        return self._client_manager

    # -- the run -----------------------------------------------------------------------------

    def fit(self, num_rounds: int, timeout: float | None) -> tuple[History, float]:
        """Run ``num_rounds`` rounds, or fewer if the ``stop_rule`` says so.

        Each phase has ``timeout`` seconds, unless the server was attached with others by round. A
        job with a journal resumes after its last closed round.

        Returns:
            The history, and the elapsed seconds.

        Raises:
            NotEnoughClients: too few clients came in time.
            NoInitialParameters: neither strategy nor client gave any.
            NoMean: the strategy cannot average such parameters.
        """
        started = self._clock()
        history = self._begin_or_resume(timeout)
        if num_rounds > self.rounds_closed:
            self._say_what_is_lost()
        for server_round in range(self.rounds_closed + 1, num_rounds + 1):
            # Before a round, not after: so a server that resumes decides as the one before it.
            if server_round > 1 and (why := self.stop_rule(history)):
                self.stopped_early = why
                break
            self._run_round(server_round, num_rounds, timeout, history)
        return history, self._clock() - started

    def _begin_or_resume(self, timeout: float | None) -> History:
        given, self.initial_parameters = self.initial_parameters, None
        resumed = None if self._checkpointer is None else self._checkpointer.resume(self.strategy)
        if resumed is not None and self._checkpointer is not None:
            for server_round, client_ids in self._checkpointer.failures().items():
                self._phases.note_failures(server_round, client_ids)
            self.rounds_closed = resumed.server_round
            self.parameters = resumed.parameters
            self._emit(Note(f"resumed after round {resumed.server_round}", resumed.server_round))
            return History.from_dict(resumed.history)
        history = History()
        self.parameters = given or initial_parameters(
            self.strategy, self._client_manager, self._phases, timeout, self.max_workers
        )
        if isinstance(self.strategy, FedAvg):
            self.strategy.check_mean(self.parameters)
        self._evaluate_centrally(0, history)
        self._keep(0, history)
        return history

    def _say_what_is_lost(self) -> None:
        if self._checkpointer is not None and self._checkpointer.lost:
            name, lost = type(self.strategy).__name__, ", ".join(self._checkpointer.lost)
            text = (
                f"{lost} of strategy {name} were not saved and begin anew, so the model may have "
                "other bits; state_dict and load_state_dict would save them"
            )
            logger.warning(text)
            self._emit(Note(text, self.rounds_closed))

    def _keep(self, server_round: int, history: History) -> None:
        """Make the end of a round durable, if the job has a journal."""
        if self._checkpointer is not None:
            self._log.digest = self._checkpointer.checkpoint(
                server_round, self.parameters, history, self.strategy, self._log.summary()
            )

    def _run_round(
        self, server_round: int, num_rounds: int, timeout: float | None, history: History
    ) -> None:
        self._log = RoundLog.begin(self._clock)
        # Step 1: let clients train, and aggregate their replies into one model.
        trained = self.fit_round(server_round, timeout)
        if trained is not None:
            parameters, fit_metrics, _ = trained
            if parameters:
                self.parameters, self._log.changed = parameters, True
                self._tell_model()  # so that the old one goes
            history.add_metrics_distributed_fit(server_round, fit_metrics)
            self._log.fit_metrics = fit_metrics
        # Step 2: evaluate it here, if the strategy can.
        self._evaluate_centrally(server_round, history)
        # Step 3: let clients evaluate it.
        evaluated = self.evaluate_round(server_round, timeout)
        if evaluated is not None:
            loss, metrics, _ = evaluated
            if loss is not None:
                history.add_loss_distributed(server_round, loss)
                history.add_metrics_distributed(server_round, metrics)
                self._log.measured(loss, metrics)
        # Step 4: make it durable. A kill before this repeats steps 1 to 3 on the same replies.
        self._keep(server_round, history)
        # Step 5: report the round.
        self.rounds_closed = server_round
        self._emit(self._log.closed(server_round, num_rounds))

    def fit_round(
        self, server_round: int, timeout: float | None
    ) -> tuple[Parameters | None, dict[str, Scalar], FitResultsAndFailures] | None:
        """Run one round of training.

        Returns:
            The new parameters (None: keep the old), aggregated metrics, and the results and
            failures; None if the strategy asked nobody.
        """
        self._phases.begin(server_round, Phase.FIT)
        self._tell_model()
        instructions = self._phases.planned(self.strategy, Phase.FIT, server_round)
        if instructions is None:
            chosen = self.strategy.configure_fit(
                server_round, self.parameters, self._client_manager
            )
            instructions = returned.checked_instructions(
                self._named("configure_fit"), chosen, FitIns
            )
        if not instructions:
            self._note(server_round, self._phases.why_nobody("configure_fit"))
            return None
        combine = None
        if says_it_streams(self.strategy):
            combine = self.strategy.combine(server_round, self.parameters)
        # Waiting for clients does not count as the round's time.
        self._log.started = self._clock()
        result = self._phases.run(
            self.strategy,
            Phase.FIT,
            server_round,
            instructions,
            timeout,
            self._check_fit,
            combine=combine,
            max_workers=self.max_workers,
        )
        self._log.add_fit(result)
        own, failures = cast("FitResultsAndFailures", split(instructions, result))
        results = self._phases.with_late(own, result), failures
        if combine is not None:
            results = StreamedResults(results[0], combine), results[1]
        if not result.enough:
            self._note(server_round, self._phases.too_few(result))
            return None, {}, results
        try:
            if result.error is not None:
                raise result.error
            self._phases.step(server_round, "aggregate fit")
            aggregated = self.strategy.aggregate_fit(server_round, *results)
            parameters, metrics = returned.checked_model(self._named("aggregate_fit"), aggregated)
            if parameters is not None:
                parameters = named_like(parameters, self.parameters)
        except AggregationError as error:
            self._note(server_round, f"the model stays as it was: {error}")
            return None, {}, results
        if parameters is None and not self._log.note:
            because = "aggregate_fit returned none" if results[0] else "no reply counts"
            if failed := why(result):
                because = f"{because} ({failed})"
            self._note(server_round, f"the model stays as it was: {because}")
        return parameters, metrics, results

    def evaluate_round(
        self, server_round: int, timeout: float | None
    ) -> tuple[float | None, dict[str, Scalar], EvaluateResultsAndFailures] | None:
        """Let clients evaluate the model.

        Returns:
            The aggregated loss and metrics, and the results and failures; None if the strategy
            asked nobody.
        """
        self._phases.begin(server_round, Phase.EVALUATE)
        instructions = self._phases.planned(self.strategy, Phase.EVALUATE, server_round)
        if instructions is None:
            chosen = self.strategy.configure_evaluate(
                server_round, self.parameters, self._client_manager
            )
            what = self._named("configure_evaluate")
            instructions = returned.checked_instructions(what, chosen, EvaluateIns)
        if not instructions:
            return None
        result = self._phases.run(
            self.strategy,
            Phase.EVALUATE,
            server_round,
            instructions,
            timeout,
            self._check_evaluate,
            max_workers=self.max_workers,
        )
        self._log.add_evaluate(result)
        results = cast("EvaluateResultsAndFailures", split(instructions, result))
        if not result.enough:
            self._note(server_round, self._phases.too_few(result))
            return None, {}, results
        try:
            self._phases.step(server_round, "aggregate evaluate")
            measured = self.strategy.aggregate_evaluate(server_round, *results)
            loss, metrics = returned.checked_loss(self._named("aggregate_evaluate"), measured)
        except AggregationError as error:
            self._note(server_round, f"no loss for this round: {error}")
            return None, {}, results
        return loss, metrics, results

    def disconnect_all_clients(self, timeout: float | None) -> None:
        """Make every available client leave, as Flower's server does at its end."""
        here = sorted(self._client_manager.all().items())
        self._phases.run(
            self.strategy,
            Phase.RECONNECT,
            0,
            [(client, ReconnectIns(seconds=None)) for _, client in here],
            timeout,
            accept_anything,
            max_workers=self.max_workers,
        )

    # -- its parts ---------------------------------------------------------------------------

    def _evaluate_centrally(self, server_round: int, history: History) -> None:
        self._phases.step(server_round, "evaluate")
        res = self.strategy.evaluate(server_round, self.parameters)
        if res is None:
            return
        loss, metrics = returned.checked_loss(self._named("evaluate"), res)
        if loss is None:
            return
        history.add_loss_centralized(server_round, loss)
        history.add_metrics_centralized(server_round, metrics)
        self._log.measured(loss, metrics)
        if server_round == 0:
            self._emit(Note(f"initial parameters: loss {loss:.4g}, {metrics}", 0))

    def check_late(self, sent: ParametersSpec, res: FitRes) -> str | None:
        """Return why a late `FitRes` does not match the request ``sent``, or None."""
        problem = check_fit_reply(sent, res, self.strategy.reply_check)
        return problem or returned.checked_refusal(self.strategy, res)

    def _check_fit(self, ins: Ins, res: Res) -> str | None:
        fit_ins, fit_res = cast(FitIns, ins), cast(FitRes, res)
        problem = check_fit_reply(fit_ins.parameters, fit_res, self.strategy.reply_check)
        return problem or returned.checked_refusal(self.strategy, fit_res)

    def _check_evaluate(self, ins: Ins, res: Res) -> str | None:
        return check_evaluate_reply(cast(EvaluateRes, res))

    def _tell_model(self) -> None:
        with contextlib.suppress(AttributeError):  # a frozen strategy does without
            self.strategy.global_parameters = self.parameters

    def _named(self, method: str) -> str:
        return returned.method_name(self.strategy, method)

    def _note(self, server_round: int, text: str) -> None:
        self._log.note = text
        logger.warning("round %d: %s", server_round, text)
        self._emit(Note(text, server_round))
