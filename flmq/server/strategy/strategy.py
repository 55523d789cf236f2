"""The server-side programming model: what a strategy decides, and when it is called.

A run begins with ``initialize_parameters``, and ``evaluate`` as round 0. Each round then calls, in
this order,

1. ``configure_fit``: which clients to ask to train, and what to tell each of them; 2.
``aggregate_fit``: make one model of their replies; 3. ``evaluate``: evaluate the model on the
server, if the strategy does that; 4. ``configure_evaluate``: which clients to ask to evaluate the
model, and how; 5. ``aggregate_evaluate``: make one loss of their replies.

Everything in between (publishing, deadlines, crashes, retries) is up to the server.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from flmq.common.errors import RunError
from flmq.common.phase import Phase
from flmq.common.typing import EvaluateIns, EvaluateRes, FitIns, FitRes, Parameters, Scalar
from flmq.journal.state import StateValue
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.rhythm.deadlines import RoundPolicy
from flmq.server.strategy.combine import Combine
from flmq.server.strategy.late import LateReplies
from flmq.server.strategy.partial.subset import NamedSubset
from flmq.server.strategy.reply_check import ReplyCheck

__all__ = ["Strategy", "UnexpectedState"]


class UnexpectedState(RunError):
    """State was saved by another strategy, but this one takes none."""

    def __init__(self, strategy: str, names: tuple[str, ...]) -> None:
        """Name the strategy and the saved state."""
        self.strategy = strategy
        self.names = names
        super().__init__(
            f"the run was saved with state for its strategy ({', '.join(names)}), and {strategy} "
            "does not implement load_state_dict: go on with the strategy that saved it"
        )


class Strategy(ABC):
    """Base class of strategies. Its methods are called one at a time, on the server's thread.

    An exception that a method raises ends the run, except for the ``AggregationError`` tree in
    ``aggregate_*``: that round then fails cleanly and the model stays as it was.
    """

    reply_check: ReplyCheck | NamedSubset = ReplyCheck.LIKE_SENT
    """How a client's parameters are checked before they get into ``results``."""
    cast: str | None = None
    """"like sent": a fit reply in another float dtype than was sent, such as float32 for a
    bfloat16 model, is cast to it (rounded once) instead of refused. None: it is refused."""
    late_replies: LateReplies = LateReplies.DROP
    """What becomes of a fit reply that comes after its round closed, read when the run begins.

    With NEXT_ROUND it is among the ``results`` of `aggregate_fit` in a later round, as a
    `LateFitRes`, which says which round it was trained in. Set it on the class or on the object.
    """

    streams: ClassVar[bool]
    """Whether `aggregate_fit` can do without the parameters in its ``results``, so that they are
    combined as they come.

    For the class that defines `aggregate_fit` to say. One that says nothing does not stream,
    unless it defines `combine` beside it; one that does not define `aggregate_fit` leaves it to
    its base. So a strategy that overrides `aggregate_fit` as Flower's programs do gets whole
    replies, and with ``streams = True`` in its body it gets counts and metrics alone.
    """
    global_parameters: Parameters = Parameters([], "numpy.ndarray")
    """The model that this round's clients train from; the server sets it before `configure_fit`."""

    required_properties: Mapping[str, Scalar] = MappingProxyType({})
    """Properties that a client's hello must have, with these values, for it to take part; read when
    the run begins. Others are named, with the reason, to them and to the run's observers."""

    @abstractmethod
    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """Return the initial model.

        Args:
            client_manager: the available clients.

        Returns:
            The initial parameters, or None: the server then asks one client for its own.
        """

    @abstractmethod
    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Choose which clients train in this round, and how.

        Args:
            server_round: the round, counted from 1.
            parameters: the global model.
            client_manager: the available clients; ``sample`` chooses among them.

        Returns:
            A pair for each client that takes part: the client, and the request. Clients not in
            the list are not asked. The parameters may differ by client; if they are one and
            the same object, the model is published once. With an empty list nobody trains, and the
            model stays.
        """

    def round_policy(
        self, server_round: int, phase: Phase, asked: int, configured: RoundPolicy
    ) -> RoundPolicy:
        """Return the deadline of a phase, and how many results it needs; called once it is planned.

        To ask more clients than are needed, let `configure_fit` choose more, and close the phase at
        ``target_results``. What is returned is in the journal, and holds when the phase is resumed.

        Args:
            server_round: the round, counted from 1.
            phase: `Phase.FIT` or `Phase.EVALUATE`.
            asked: how many clients are asked.
            configured: what the `ServerConfig` says: the default.
        """
        return configured

    @abstractmethod
    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """Make the new global model from the clients' replies.

        Args:
            server_round: the round, counted from 1.
            results: the replies that count, in the order of client ids. A client that was asked
                may be missing: it may have failed, or not have answered in time. With
                ``late_replies`` NEXT_ROUND there may be late ones of earlier rounds, even of
                clients that are among the results already.
            failures: one for each client that was asked and is not in ``results``: the client and
                its reply, if the reply's status is not OK, else an exception that names the
                client and the reason.

        Returns:
            The new global parameters, and metrics of the round's training for the history. None
            for the parameters discards the round's replies: the model stays.
        """

    def combine(self, server_round: int, parameters: Parameters) -> Combine | None:
        """Return a new `Combine` for this round's accepted replies, which get it as they arrive.

        Called once a round, before clients are asked. If it returns one, and the strategy
        `streams`, memory does not grow with the number of clients: ``results`` in `aggregate_fit`
        are then `StreamedResults`, in which parameters are empty and ``results.combine`` has taken
        them in.

        Args:
            server_round: the round, counted from 1.
            parameters: the global model, which clients train from.

        Returns:
            A new object for each round; or None, the default: `aggregate_fit` then finds each
            reply's parameters in ``results``, read from disk on access.
        """
        return None

    def check_fit_res(self, res: FitRes) -> str | None:
        """Return why a reply does not count, or None if it does: the default.

        For what a strategy needs of a reply's metrics, such as a count of steps: a client may send
        anything. Called for each reply that passed ``reply_check``, on the server's thread that
        hears replies: look at ``res`` alone. A refused reply is rejected, for the reason
        returned, and listed among the ``failures`` of `aggregate_fit`.
        """
        return None

    def global_model(self, sent: Parameters) -> Parameters:
        """Return the global model within ``sent``, the parameters of a request: by default all.

        For `flmq runs replay`, which finds the model of a round in its requests.
        """
        return sent

    def state_dict(self) -> Mapping[str, StateValue]:
        """Return what this strategy must remember from round to round, besides the global model.

        Momentum, moments, control variates, random generators: whatever `configure_*` and
        `aggregate_*` change and read again. It is saved with every round and every plan, so that a
        run continues with the same bits after its server died. Values may be None, numbers,
        strings, bytes, numpy arrays, numpy's and Python's random generators, and dicts, lists and
        tuples of them. A stateless strategy, the default, returns an empty dict.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, StateValue]) -> None:
        """Restore what `state_dict` returned; called before the first round of a resumed run.

        Raises:
            UnexpectedState: the state was saved by a stateful strategy, and this one is stateless.
        """
        if state:
            raise UnexpectedState(type(self).__name__, tuple(map(str, state)))

    @abstractmethod
    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Choose which clients evaluate the global model in this round, and how.

        Args:
            server_round: the round, counted from 1.
            parameters: the global model, after this round's training.
            client_manager: the available clients; ``sample`` chooses among them.

        Returns:
            A pair for each client that takes part: the client, and the request. With an empty
            list nobody evaluates.
        """

    @abstractmethod
    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[tuple[ClientProxy, EvaluateRes] | BaseException],
    ) -> tuple[float | None, dict[str, Scalar]]:
        """Make one loss, and one set of metrics, from the clients' evaluations.

        Args:
            server_round: the round, counted from 1.
            results: the replies that count, in the order of client ids.
            failures: as in `aggregate_fit`.

        Returns:
            The loss and the metrics for the history. None for the loss if there is none.
        """

    @abstractmethod
    def evaluate(
        self, server_round: int, parameters: Parameters
    ) -> tuple[float, dict[str, Scalar]] | None:
        """Evaluate the global model on the server, for instance on a test set of its own.

        Args:
            server_round: the round, or 0 for the initial model.
            parameters: the global model.

        Returns:
            The loss and the metrics for the history, or None if the server does not evaluate.
        """
