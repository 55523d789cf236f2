"""A client as the server's code holds it: an id, properties, and the calls that reach it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from flmq.common.errors import UsageError
from flmq.common.typing import (
    DisconnectRes,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Properties,
    ReconnectIns,
)
from flmq.wire.kinds import kind_of

__all__ = ["CannotAsk", "ClientProxy"]


class CannotAsk(UsageError):
    """A proxy has no way to ask its client with a kind of message."""

    def __init__(self, proxy: str, kind: str) -> None:
        """Name the proxy's class and the kind."""
        super().__init__(f"{proxy} cannot ask with messages of kind {kind}: implement its `ask`")


class ClientProxy(ABC):
    """One client. Strategies pair it with what it is asked.

    Every call blocks until the client's answer is here, for ``timeout`` seconds at most (None: no
    limit). ``group_id`` is the round on whose behalf it is made, or None.
    """

    def __init__(self, cid: str) -> None:
        """Stand for the client with the id ``cid``; its properties are not known yet."""
        self.cid = cid
        self.properties: Properties = {}

    def __repr__(self) -> str:
        """Show whom this stands for."""
        return f"{type(self).__name__}({self.cid!r})"

    @abstractmethod
    def get_properties(
        self, ins: GetPropertiesIns, timeout: float | None, group_id: int | None = None
    ) -> GetPropertiesRes:
        """Return what the client tells of itself."""

    @abstractmethod
    def get_parameters(
        self, ins: GetParametersIns, timeout: float | None, group_id: int | None = None
    ) -> GetParametersRes:
        """Return the client's own model parameters."""

    @abstractmethod
    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None = None) -> FitRes:
        """Have the client train the given parameters on its data."""

    @abstractmethod
    def evaluate(
        self, ins: EvaluateIns, timeout: float | None, group_id: int | None = None
    ) -> EvaluateRes:
        """Have the client measure the given parameters on its data."""

    @abstractmethod
    def reconnect(
        self, ins: ReconnectIns, timeout: float | None, group_id: int | None = None
    ) -> DisconnectRes:
        """Have the client leave, and come back after ``ins.seconds`` where that is given."""

    def ask(self, ins: object, timeout: float | None, group_id: int | None = None) -> Any:
        """Ask the client with a message of any kind (`flmq.wire.kinds`); returns its ``res``.

        Here those of flmq's own kinds, by the methods above; a subclass may know more ways.

        Raises:
            NotRegistered: ``ins`` is of no kind that is registered.
            CannotAsk: this proxy has no method for its kind.
        """
        kind = kind_of(ins)
        method = getattr(self, kind.call, None)
        if method is None:
            raise CannotAsk(type(self).__name__, kind.name)
        return method(ins, timeout, group_id)
