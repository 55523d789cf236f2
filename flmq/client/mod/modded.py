"""A client with mods around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from flmq.client.client import Client
from flmq.client.typing import ClientLike, to_client
from flmq.common.typing import (
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
)

__all__ = ["CallNext", "Mod", "with_mods"]

CallNext: TypeAlias = Callable[[Any], Any]
"""``ins -> res``: the next mod, or the client."""
Mod: TypeAlias = Callable[[Any, CallNext], Any]
"""``(ins, call_next) -> res``; ``ins`` is a `FitIns`, `EvaluateIns`, ... and ``res`` its reply."""


def with_mods(client: ClientLike, mods: Sequence[Mod]) -> Client:
    """Return ``client`` with ``mods`` around it, the first of them outermost.

    They see the messages of `Client`'s four methods; those of added kinds go to ``client`` itself.

    Raises:
        InvalidReturnValue: ``client`` is neither a `Client` nor a `NumPyClient`.
    """
    return _Modded(to_client(client), tuple(mods))


class _Modded(Client):
    """Pass each message through the mods."""

    def __init__(self, client: Client, mods: tuple[Mod, ...]) -> None:
        self._client = client
        self._mods = mods

    def __getattr__(self, name: str) -> Any:
        # Methods for added kinds, and the NumPyClient by whose name errors speak of this one.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._client, name)

    def get_properties(self, ins: GetPropertiesIns) -> GetPropertiesRes:
        res: GetPropertiesRes = self._through(self._client.get_properties)(ins)
        return res

    def get_parameters(self, ins: GetParametersIns) -> GetParametersRes:
        res: GetParametersRes = self._through(self._client.get_parameters)(ins)
        return res

    def fit(self, ins: FitIns) -> FitRes:
        res: FitRes = self._through(self._client.fit)(ins)
        return res

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        res: EvaluateRes = self._through(self._client.evaluate)(ins)
        return res

    def _through(self, call: CallNext) -> CallNext:
        for mod in reversed(self._mods):
            call = _around(mod, call)
        return call


def _around(mod: Mod, call_next: CallNext) -> CallNext:
    return lambda ins: mod(ins, call_next)
