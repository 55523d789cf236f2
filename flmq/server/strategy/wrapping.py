"""A strategy around another one: what is left to that."""

from __future__ import annotations

from dataclasses import dataclass

from flmq.common.phase import Phase
from flmq.common.typing import EvaluateIns, EvaluateRes, FitRes, Metrics, Parameters
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.rhythm.deadlines import RoundPolicy
from flmq.server.strategy.strategy import Strategy

__all__ = ["Wrapping", "layers"]


@dataclass(eq=False, repr=False)
class Wrapping(Strategy):
    """Leave to ``strategy`` all but the training of a round."""

    strategy: Strategy

    @property
    def global_parameters(self) -> Parameters:
        """The model that this round's clients train from."""
        return self.strategy.global_parameters

    @global_parameters.setter
    def global_parameters(self, parameters: Parameters) -> None:
        self.strategy.global_parameters = parameters

    def __repr__(self) -> str:
        """Name the strategy that is wrapped."""
        return f"{type(self).__name__}({self.strategy!r})"

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """Return the wrapped strategy's initial model."""
        return self.strategy.initialize_parameters(client_manager)

    def check_fit_res(self, res: FitRes) -> str | None:
        """Refuse what the wrapped strategy refuses."""
        return self.strategy.check_fit_res(res)

    def round_policy(
        self, server_round: int, phase: Phase, asked: int, configured: RoundPolicy
    ) -> RoundPolicy:
        """Wait as long, and for as many, as the wrapped strategy does."""
        return self.strategy.round_policy(server_round, phase, asked, configured)

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Ask whom the wrapped strategy asks."""
        return self.strategy.configure_evaluate(server_round, parameters, client_manager)

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[tuple[ClientProxy, EvaluateRes] | BaseException],
    ) -> tuple[float | None, Metrics]:
        """Aggregate as the wrapped strategy does."""
        return self.strategy.aggregate_evaluate(server_round, results, failures)

    def evaluate(self, server_round: int, parameters: Parameters) -> tuple[float, Metrics] | None:
        """Evaluate as the wrapped strategy does."""
        return self.strategy.evaluate(server_round, parameters)


def layers(strategy: Strategy) -> list[Strategy]:
    """Return ``strategy``, the one that it is wrapped around, and so on to the innermost."""
    found = [strategy]
    while isinstance(found[-1], Wrapping):
        found.append(found[-1].strategy)
    return found
