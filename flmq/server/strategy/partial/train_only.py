"""Average only some of a model's tensors: adapters, or all but counters and personal layers.

The model stays whole, and clients get all of it. The strategy inside sees a model of the chosen
tensors alone, and never knows of the others, which stay as the server has them. Source: personal
layers, Arivazhagan et al., 2019, arXiv:1912.00818.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from flmq.common.errors import InconsistentTensors, InvalidReturnValue
from flmq.common.parameter import with_parameters
from flmq.common.typing import FitIns, FitRes, Metrics, Parameters
from flmq.journal.state import StateValue
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy.asynchronous import Asynchronous
from flmq.server.strategy.combine import Combine, Combined
from flmq.server.strategy.fedavg import FedAvg
from flmq.server.strategy.heterogeneous import SCAFFOLD
from flmq.server.strategy.options import InvalidStrategyOption
from flmq.server.strategy.partial.subset import NamedSubset, part_of
from flmq.server.strategy.reply_check import ReplyCheck
from flmq.server.strategy.strategy import Strategy
from flmq.server.strategy.streaming import StreamedResults, says_it_streams
from flmq.server.strategy.validation import checked_model, method_name
from flmq.server.strategy.wrapping import Wrapping

__all__ = ["KeepLocal", "TrainOnly"]


class TrainOnly(Wrapping):
    """Let ``strategy`` average only tensors whose names match: ``TrainOnly(FedAvg(), "head.*")``.

    A client may return the whole model or these tensors alone; of the former the others are not
    looked at. Names that match nothing end the run before anybody trains.
    """

    others: ClassVar[bool] = False
    """Whether the tensors whose names match are those that are not averaged."""

    def __init__(self, strategy: Strategy, *names: str) -> None:
        """Use ``strategy``, and for ``names`` patterns as in a shell.

        Raises:
            InvalidStrategyOption: no names, or a strategy whose replies are unlike its model.
        """
        _check(strategy, names)
        self.strategy = strategy
        self.subset = NamedSubset(names, self.others)
        self.reply_check = self.subset
        self.late_replies, self.cast = strategy.late_replies, strategy.cast
        vars(self)["streams"] = says_it_streams(strategy)  # the one inside, not a class, says so
        self._model = Parameters([], "numpy.ndarray")

    def __repr__(self) -> str:
        """Name the strategy inside, and the tensors."""
        return f"{type(self).__name__}({self.strategy!r}: {self.subset})"

    def __getattr__(self, name: str) -> Any:
        """Return what this object lacks from the strategy inside: its options."""
        if name == "strategy" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.strategy, name)

    @property
    def global_parameters(self) -> Parameters:
        """The whole model that this round's clients train from."""
        return self._model

    @global_parameters.setter
    def global_parameters(self, parameters: Parameters) -> None:
        self._model = parameters
        if parameters.tensors:
            self.strategy.global_parameters = self._part(parameters, parameters)

    # -- training ----------------------------------------------------------------------------

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """Return the initial model of the strategy inside, whose names are checked."""
        parameters = self.strategy.initialize_parameters(client_manager)
        if parameters is not None:
            part = self._part(parameters, parameters)
            if isinstance(self.strategy, FedAvg):
                self.strategy.check_mean(part)
        return parameters

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Ask whom the strategy inside asks; all get the whole model."""
        self.subset.places(parameters.names)
        return self.strategy.configure_fit(server_round, parameters, client_manager)

    def combine(self, server_round: int, parameters: Parameters) -> Combine | None:
        """Let the strategy inside combine the chosen tensors of replies."""
        inner = self.strategy.combine(server_round, self._part(parameters, parameters))
        return None if inner is None else _PartOfReplies(inner, self, parameters)

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, Metrics]:
        """Put what the strategy inside makes of the chosen tensors into the whole model."""
        given = getattr(self.strategy, "initial_parameters", None)
        if given is not None and not self._model.tensors:
            self.global_parameters = given  # called by hand, before any server had them
        model = self._model
        inside: list[tuple[ClientProxy, FitRes]]
        if isinstance(results, StreamedResults) and isinstance(results.combine, _PartOfReplies):
            inside = StreamedResults(results, results.combine.inner)
        else:
            inside = [(client, self._of_reply(client.cid, res, model)) for client, res in results]
        what = method_name(self.strategy, "aggregate_fit")
        made, metrics = checked_model(
            what, self.strategy.aggregate_fit(server_round, inside, failures)
        )
        if made is None:
            return None, metrics
        self._model = self._whole(what, made, model)
        return self._model, metrics

    def state_dict(self) -> Mapping[str, StateValue]:
        """Return the state of the strategy inside."""
        return self.strategy.state_dict()

    def load_state_dict(self, state: Mapping[str, StateValue]) -> None:
        """Restore the state of the strategy inside."""
        self.strategy.load_state_dict(state)

    def _part(self, parameters: Parameters, model: Parameters) -> Parameters:
        """Return the chosen tensors; raises `InconsistentTensors` where they are not there."""
        part = part_of(parameters, self.subset.places(model.names), model.names)
        if isinstance(part, str):
            raise InconsistentTensors(part)
        return part

    def _of_reply(self, client_id: str, res: FitRes, model: Parameters) -> FitRes:
        try:
            return with_parameters(res, self._part(res.parameters, model))
        except InconsistentTensors as error:
            raise InconsistentTensors(f"the reply of {client_id}: {error}") from error

    def _whole(self, what: str, made: Parameters, model: Parameters) -> Parameters:
        places, tensors = self.subset.places(model.names), list(model.tensors)
        if len(made.tensors) != len(places):
            raise InvalidReturnValue(
                f"{what} returned {len(made.tensors)} tensors, and {len(places)} are averaged"
            )
        for place, tensor in zip(places, made.tensors, strict=True):
            tensors[place] = tensor
        return Parameters(tensors, model.tensor_type, model.names)


class KeepLocal(TrainOnly):
    """Let ``strategy`` average all tensors but those whose names match: the server's stay.

    For counters (``"*.num_batches_tracked"``), and for personal layers: a client that keeps its own
    need not return them.
    """

    others = True


class _PartOfReplies:
    """A `Combine` that gives another one the chosen tensors of replies."""

    def __init__(self, inner: Combine, owner: TrainOnly, model: Parameters) -> None:
        self.inner, self._owner, self._model = inner, owner, model

    def add(self, client_id: str, res: FitRes) -> None:
        self.inner.add(client_id, self._owner._of_reply(client_id, res, self._model))

    def merge(self, other: Self) -> None:
        self.inner.merge(other.inner)

    def finish(self) -> Combined:
        return self.inner.finish()


def _check(strategy: Strategy, names: Iterable[str]) -> None:
    if not isinstance(strategy, Strategy):
        raise InvalidStrategyOption(f"strategy is {strategy!r}: give a strategy, such as FedAvg()")
    kind = type(strategy).__name__
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidStrategyOption(
            f"names is {names!r}: name tensors, as in TrainOnly({kind}(), 'head.*')"
        )
    unlike = isinstance(strategy, Asynchronous | SCAFFOLD)  # no rounds; variates beside the model
    if unlike or strategy.reply_check is not ReplyCheck.LIKE_SENT:
        raise InvalidStrategyOption(
            f"strategy is {kind}, whose replies are not rounds of models: give another"
        )
