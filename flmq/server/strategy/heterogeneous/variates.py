"""The server's side of control variates: c, and whose variates are in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flmq.common.learning import CONTROL_VARIATE, LOST_VARIATE, is_digest, working_dtype
from flmq.common.logger import logger
from flmq.common.parameter import ndarray_to_bytes, parameters_to_ndarrays, tensor_spec
from flmq.common.typing import Config, FitIns, FitRes, NDArray, NDArrays, Parameters
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy.combine import WeightedMean
from flmq.server.strategy.late import LateReplies
from flmq.server.strategy.options import InvalidStrategyOption
from flmq.server.strategy.steps import moved

__all__ = ["UniformMean", "Variates"]


class UniformMean(WeightedMean):
    """The exact mean of replies, each of the same weight."""

    def contribution(self, client_id: str, res: FitRes) -> tuple[NDArrays, int]:
        """Return the reply's tensors, and 1."""
        return parameters_to_ndarrays(res.parameters, copy=False), 1


@dataclass
class Variates:
    """``c = (1 / N) sum c_i``, and the digest of each client's c_i in it."""

    num_clients: int
    """N."""
    c: NDArrays = field(default_factory=list)
    """Empty before the first round: all zeros. At least float32, whatever the model's dtypes."""
    counted: dict[str, str] = field(default_factory=dict)
    _stepped: NDArrays = field(default_factory=list)

    def sent_with(
        self, parameters: Parameters, asked: list[tuple[ClientProxy, FitIns]]
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Return requests with the model and c, which tell each client which variate counts.

        Raises:
            InvalidStrategyOption: with these clients there are more than ``num_clients``.
        """
        have = len(self.counted.keys() | {client.cid for client, _ in asked})
        if have > self.num_clients:
            raise InvalidStrategyOption(
                f"num_clients is {self.num_clients}, and {have} clients take part: give the number "
                "of all clients of the federation"
            )
        if not self.c:
            specs = map(tensor_spec, parameters.tensors)
            self.c = [np.zeros(spec.shape, working_dtype(spec.dtype)) for spec in specs]
        c = map(ndarray_to_bytes, self.c)
        names = (*parameters.names, *(f"variate of {name}" for name in parameters.names))
        both = Parameters([*parameters.tensors, *c], parameters.tensor_type, names)
        return [
            (client, FitIns(both, {**ins.config, **self._told(client.cid)}))
            for client, ins in asked
        ]

    def refuse_late(self, late_replies: LateReplies) -> None:
        """Refuse a run whose late replies count: a client's next variate would not contain them.

        Raises:
            InvalidStrategyOption: it is one.
        """
        if late_replies is not LateReplies.DROP:
            raise InvalidStrategyOption("late_replies is NEXT_ROUND: SCAFFOLD takes none, use DROP")

    def problem(self, res: FitRes) -> str | None:
        """Return why a reply does not say which variate it made, or None if it does."""
        made = res.metrics.get(CONTROL_VARIATE)
        if is_digest(made):
            return None
        return (
            f'the metric "{CONTROL_VARIATE}" is {made!r:.70}: use '
            "flmq.client.learning.ScaffoldClient, or return the SHA-256 of the new variate"
        )

    def step(self, num_replies: int, means: Iterator[NDArray]) -> None:
        """Add ``|S| / N`` times the mean of each tensor's dc, once `count` says that it counts.

        Raises:
            NonFiniteValues: numbers became NaN or infinity.
        """
        share = num_replies / self.num_clients
        pairs = enumerate(zip(self.c, means, strict=True))
        self._stepped = [moved(number, c, share * dc) for number, (c, dc) in pairs]

    def _told(self, client_id: str) -> Config:
        return {CONTROL_VARIATE: self.counted.get(client_id, "")}

    def count(self, results: Iterable[tuple[ClientProxy, FitRes]]) -> None:
        """Let the step count, if there are ``results``: the variates of these are in c now."""
        made = {client.cid: str(res.metrics[CONTROL_VARIATE]) for client, res in results}
        if made:
            self.c, self.counted = self._stepped, {**self.counted, **made}
        self._stepped = []

    def restart_for(self, failures: Iterable[object]) -> None:
        """Begin at zero again, if a client failed because it has lost its variate."""
        lost = [
            str(getattr(failure, "client_id", ""))
            for failure in failures
            if str(getattr(failure, "reason", "")).startswith(LOST_VARIATE)
        ]
        if lost:
            logger.warning("all control variates begin at zero: %s lost its own", ", ".join(lost))
            self.c, self.counted = [], {}

    def state_dict(self) -> dict[str, Any]:
        """Return all of it."""
        return {"num_clients": self.num_clients, "c": self.c, "counted": self.counted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it; of another N, c is scaled."""
        scale = state["num_clients"] / self.num_clients
        self.c = [np.asarray(c * scale, c.dtype) for c in state["c"]]
        self.counted = state["counted"]
