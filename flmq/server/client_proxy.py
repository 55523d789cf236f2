"""A client as the server's code sees it: an id, properties, and methods that call it."""

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
    """A proxy cannot send its client this kind of message."""

    def __init__(self, proxy: str, kind: str) -> None:
        """Name the proxy's class and the kind."""
        super().__init__(f"{proxy} cannot ask with messages of kind {kind}: implement its `ask`")


class ClientProxy(ABC):
    """One client. Strategies pair it with a request.

    Every call blocks until the client's answer arrives, for at most ``timeout`` seconds (None: no
    limit). ``group_id`` is the round to which the call belongs, or None.
    """

    def __init__(self, cid: str) -> None:
        """Represent the client with the id ``cid``; its properties are not known yet."""
        self.cid = cid
        self.properties: Properties = {}

    def __repr__(self) -> str:
        """Show the client's id."""
        return f"{type(self).__name__}({self.cid!r})"

    @abstractmethod
    def get_properties(
        self, ins: GetPropertiesIns, timeout: float | None, group_id: int | None = None
    ) -> GetPropertiesRes:
        """Return the client's properties."""

    @abstractmethod
    def get_parameters(
        self, ins: GetParametersIns, timeout: float | None, group_id: int | None = None
    ) -> GetParametersRes:
        """Return the client's own model parameters."""

    @abstractmethod
    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None = None) -> FitRes:
        """Let the client train the given parameters on its data."""

    @abstractmethod
    def evaluate(
        self, ins: EvaluateIns, timeout: float | None, group_id: int | None = None
    ) -> EvaluateRes:
        """Let the client evaluate the given parameters on its data."""

    @abstractmethod
    def reconnect(
        self, ins: ReconnectIns, timeout: float | None, group_id: int | None = None
    ) -> DisconnectRes:
        """Send the client away, for ``ins.seconds`` if given."""

    def ask(self, ins: object, timeout: float | None, group_id: int | None = None) -> Any:
        """Send the client a message of any kind (`flmq.wire.kinds`); return its ``res``.

        Handles flmq's own kinds, by the methods above; a subclass may support more.

        Raises:
            NotRegistered: the type of ``ins`` belongs to no registered kind.
            CannotAsk: this proxy has no method for its kind.
        """
        kind = kind_of(ins)
        method = getattr(self, kind.call, None)
        if method is None:
            raise CannotAsk(type(self).__name__, kind.name)
        return method(ins, timeout, group_id)
