"""What all private strategies share: a strategy around another one, which clips and adds noise."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flmq.common.errors import InvalidReturnValue, RunError
from flmq.common.logger import get_logger
from flmq.common.typing import (
    Config,
    FitIns,
    FitRes,
    Metrics,
    Parameters,
)
from flmq.journal.state import StateValue
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy.combine import AllReplies, WeightedMean
from flmq.server.strategy.privacy.accountant import Accountant
from flmq.server.strategy.privacy.clipped import (
    ClippedParameters,
    ClippedReplies,
    Update,
    named,
    uniform,
)
from flmq.server.strategy.privacy.options import PrivacyOptions, check_wrapped
from flmq.server.strategy.privacy.private_mean import Mechanism, PrivateMean, noised
from flmq.server.strategy.privacy.wrapping import Wrapping
from flmq.server.strategy.streaming import StreamedResults, says_it_streams
from flmq.server.strategy.validation import checked_instructions, method_name

__all__ = ["NotPrivateBefore", "PrivateStrategy"]

logger = get_logger(__name__)

Results = list[tuple[ClientProxy, FitRes]]
Failures = list[tuple[ClientProxy, FitRes] | BaseException]
Clipping = PrivateMean | ClippedReplies


class NotPrivateBefore(RunError):
    """A run was saved by a strategy without differential privacy, and a private one resumes it."""

    def __init__(self, strategy: str) -> None:
        """Name the private strategy."""
        super().__init__(
            f"the run was saved by a strategy other than {strategy}: what its rounds told of "
            "clients is unknown. Begin anew (--fresh), or go on with the strategy that saved it"
        )


class PrivateStrategy(PrivacyOptions, Wrapping):
    """A strategy around ``strategy``, which clips replies and noises their mean.

    Noise is added to the mean of the clipped updates, before ``strategy`` updates the model with
    it: whatever it makes of the mean (momentum, Adam) has the same privacy. Flower adds it
    afterwards, to a model that Adam may have moved by far more than the clipping norm. Every client
    weighs the same, whatever its ``num_examples``. Failures are the wrapped strategy's to accept;
    Flower discards a round that has any.

    A strategy that takes no mean (a median, or an ``aggregate_fit`` of its own that does not call
    ``super()``'s) gets clipped replies, and noise is added to the model that it returns, as Flower
    does. How much one client can change that model is not known, so there is no epsilon.
    """

    def __post_init__(self, noise_seed: int | None) -> None:
        """Check the options.

        Raises:
            InvalidStrategyOption: one is out of its range, or ``strategy`` cannot be wrapped.
        """
        super().__post_init__(noise_seed)
        check_wrapped(self.strategy)
        self.set_up()
        self.cast = self.strategy.cast
        self.required_properties = self.strategy.required_properties
        self.min_available_clients = getattr(self.strategy, "min_available_clients", 1)
        vars(self)["streams"] = says_it_streams(self.strategy)  # the wrapped one's, not a class's
        self._accountant = Accountant(self.noise_multiplier, self.delta, self.num_clients)
        self._unknown = False

    @abstractmethod
    def set_up(self) -> None:
        """Check the options beyond those of all private strategies, and set what follows here."""

    num_sampled_clients: int
    noise_multiplier: float
    norm: float
    """C: what updates are clipped to in this round."""
    update_noise: float
    """z, of the updates alone."""
    clients_noise = False
    """Whether clients add the noise."""
    clients_clip = False
    """Whether clients should clip: one whose update is longer has not done as it was told."""
    norm_bit_key: str | None = None
    """The metric in which clients tell whether they clipped: secret, so that no mean is shown."""

    def mechanism(self) -> Mechanism:
        """Return what this round does to updates."""
        return Mechanism(
            # What clients have noised is long, and must not be clipped.
            clipping_norm=math.inf if self.clients_noise else self.norm,
            noise_norm=self.norm,
            noise_multiplier=self.update_noise,
            num_sampled_clients=self.num_sampled_clients,
            secret=self._secret,
            by_clients=self.clients_noise,
        )

    def client_config(self) -> Config:
        """Return what the clients of this round are told besides the wrapped strategy's config."""
        return {}

    def learn(self, server_round: int, results: Results, updates: Mapping[str, Update]) -> Metrics:
        """Prepare the next round, once noise was added in this one; return metrics to show."""
        return {}

    # -- the round ---------------------------------------------------------------------------

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Ask whom the wrapped strategy asks, each client once."""
        self.global_parameters = parameters
        chosen = self.strategy.configure_fit(server_round, parameters, client_manager)
        what = method_name(self.strategy, "configure_fit")
        instructions = checked_instructions(what, chosen, FitIns)
        asked: set[str] = set()
        for client, _ in instructions:
            if client.cid in asked:
                raise InvalidReturnValue(
                    f"{what} returned {client.cid} twice, which could then change the model by "
                    "twice the clipping norm: ask each client once"
                )
            asked.add(client.cid)
        told = self.client_config()
        return [(each, replace(ins, config={**ins.config, **told})) for each, ins in instructions]

    def combine(self, server_round: int, parameters: Parameters) -> Clipping:
        """Clip replies as they come, and add them up if the wrapped strategy takes their mean."""
        inner = self.strategy.combine(server_round, parameters)
        mechanism = self.mechanism()
        if type(inner) is WeightedMean:
            return PrivateMean(mechanism, server_round, parameters)
        return ClippedReplies(inner or AllReplies(), parameters, mechanism.clipping_norm)

    def aggregate_fit(
        self, server_round: int, results: Results, failures: Failures
    ) -> tuple[Parameters | None, Metrics]:
        """Let the wrapped strategy aggregate what was clipped and noised; tell epsilon so far."""
        if not results:
            return self.strategy.aggregate_fit(server_round, results, failures)
        combine = self._taken_in(server_round, results)
        shown = [(client, self._shown(client.cid, res, combine)) for client, res in results]
        try:
            model, metrics = self.strategy.aggregate_fit(
                server_round, StreamedResults(shown, combine), failures
            )
        finally:  # drawn noise counts, even if the step that follows it fails
            drawn = isinstance(combine, PrivateMean) and combine.finished
            if drawn:
                asked = len(results) + len(failures)
                self._accountant.spend((client.cid for client, _ in results), asked)
        if model is not None and not drawn:
            model = noised(model, self.mechanism(), server_round, len(results))
            self._say_it_is_unknown()
        if model is None and not drawn:
            return None, metrics  # nothing was told of the clients
        learned = self.learn(server_round, results, combine.updates)
        return model, {**metrics, **learned, **self._told(combine.updates)}

    def _taken_in(self, server_round: int, results: Results) -> Clipping:
        if isinstance(results, StreamedResults):
            taken: Any = results.combine
            assert isinstance(taken, Clipping)
            return taken
        combine = self.combine(server_round, self.global_parameters)
        for client, res in results:
            combine.add(client.cid, res)
        return combine

    def _shown(self, client_id: str, res: FitRes, combine: Clipping) -> FitRes:
        parameters = res.parameters
        if parameters.tensors:
            factor = combine.updates[client_id].factor
            parameters = ClippedParameters(res, self.global_parameters, factor)
        return uniform(res, parameters, without=self.norm_bit_key)

    def _told(self, updates: Mapping[str, Update]) -> Metrics:
        told: Metrics = {}
        if self.clients_clip:
            loud = sorted(client for client, update in updates.items() if update.exceeded)
            told["num_not_clipped"] = len(loud)
            if loud:
                logger.warning("these did not clip, and were clipped here: %s", named(loud))
        epsilon = None if self._unknown else self._accountant.epsilon()
        if epsilon is not None:
            told |= {"epsilon": epsilon, "delta": self.delta}
        return told

    def _say_it_is_unknown(self) -> None:
        if not self._unknown:
            self._unknown = True
            logger.warning(
                "no epsilon can be told: %s does not take the mean of replies as FedAvg does, so "
                "how much one client can change its model is not known",
                type(self.strategy).__name__,
            )

    # -- its state ---------------------------------------------------------------------------

    def state_dict(self) -> Mapping[str, StateValue]:
        """Return the wrapped strategy's state, the secret of the noise, and what was spent."""
        return {
            "strategy": self.strategy.state_dict(),
            "secret": self._secret,
            "spent": self._accountant.state_dict(),
            "unknown": self._unknown,
        }

    def load_state_dict(self, state: Mapping[str, StateValue]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            NotPrivateBefore: another strategy saved it.
        """
        saved: Any = state
        if not {"strategy", "secret", "spent", "unknown"} <= saved.keys():
            raise NotPrivateBefore(type(self).__name__)
        self.strategy.load_state_dict(saved["strategy"])
        self._secret = saved["secret"]
        self._accountant.load_state_dict(saved["spent"])
        self._unknown = saved["unknown"]
