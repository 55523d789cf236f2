"""Publishing a model once, whatever the number of clients: to the stream, by digest."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from flmq.common.errors import BrokerRefusal, RunError
from flmq.common.logger import logger
from flmq.common.typing import EvaluateIns, FitIns, Parameters
from flmq.post import Outbox
from flmq.server.gather import Ask
from flmq.transport import MODELS, STREAM_MAX_BYTES, TASKS, Address, PublishOutcome
from flmq.wire import INLINE_BYTES, BlobRef, refer, size_of

__all__ = ["ModelTooLarge", "Models", "without_parameters"]

_REMEMBERED = 8
"""Models that no phase in flight needs and that may be needed again."""
_TRIES = 5
"""How often a model is published whose stream is deleted meanwhile."""
_AGAIN_AFTER = 3.0
"""Seconds within which a model is not published once more: whoever asks finds that copy."""


class ModelTooLarge(RunError):
    """The stream of models cannot keep a model of this size until everybody has read it."""

    def __init__(self, size: int, limit: int) -> None:
        """Name both, in bytes."""
        self.size = size
        self.limit = limit
        super().__init__(
            f"a model of {size} bytes cannot be published: the stream of models keeps {limit} "
            "bytes, and needs room for two; train a smaller model, or give parts of it"
        )


@dataclass(slots=True)
class _Shared:
    ref: BlobRef
    parameters: Parameters | None
    """None: no phase in flight needs it any more."""
    phases: int = 0
    """How many phases in flight need it."""
    published: bool = False
    again: float = -math.inf
    """When it was published once more, in monotonic seconds."""


class Models:
    """The models of a job in its site's stream. Thread-safe."""

    def __init__(
        self, outbox: Outbox, job: str, declare: Callable[[], None] = lambda: None
    ) -> None:
        """Publish for ``job`` through ``outbox``; ``declare`` makes the stream where it is not."""
        self._outbox = outbox
        self._declare = declare
        self._declared = False
        self._job = job
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Shared] = OrderedDict()

    def refer(self, asks: Sequence[Ask]) -> dict[str, BlobRef]:
        """For each client whose task shall name a model, which: what several of ``asks`` share.

        Reads a model's bytes once; publishes nothing.
        """
        now = time.time_ns() // 1_000_000
        shared = _groups(asks)
        size = self._outbox.chunk_bytes(TASKS) if shared else 0
        groups = [
            (refer(parameters, chunk_bytes=size, published_unix_ms=now), parameters, clients)
            for parameters, clients in shared
        ]
        refs: dict[str, BlobRef] = {}
        with self._lock:
            for ref, parameters, clients in groups:
                refs.update(dict.fromkeys(clients, self._enter(ref, parameters)))
            for digest in {ref.digest for ref in refs.values()}:
                self._known[digest].phases += 1
        return refs

    def publish(self, refs: Iterable[BlobRef]) -> int:
        """Publish those of ``refs`` that were not before; the bytes that took. Blocks.

        Raises:
            ModelTooLarge: the stream cannot keep the model.
        """
        return sum(self._publish_once(digest) for digest in {ref.digest for ref in refs})

    def release(self, refs: Iterable[BlobRef]) -> None:
        """Let go of the models of a phase that is over; that they were published is kept."""
        with self._lock:
            for digest in {ref.digest for ref in refs}:
                shared = self._known[digest]
                shared.phases -= 1
                if shared.phases == 0:
                    shared.parameters = None

    def at_hand(self, digest: str) -> Parameters | None:
        """The model of ``digest``, while a phase in flight needs it."""
        with self._lock:
            shared = self._known.get(digest)
            return None if shared is None else shared.parameters

    def publish_again(self, digest: str) -> bool:
        """Publish a model once more for who cannot find it; False if it is not at hand."""
        with self._lock:
            shared = self._known.get(digest)
            if shared is None or shared.parameters is None:
                return False
            now = time.monotonic()
            if now - shared.again < _AGAIN_AFTER:
                return True
            shared.again = now
            ref, parameters = shared.ref, shared.parameters
        self._outbox.send_blob(self._address(), ref, ref.digest, parameters.tensors)
        return True

    def _enter(self, ref: BlobRef, parameters: Parameters) -> BlobRef:
        """Keep a model at hand, and what to call it. Call it with the lock held."""
        known = self._known.setdefault(ref.digest, _Shared(ref, parameters))
        known.parameters = parameters
        self._known.move_to_end(ref.digest)
        idle = [digest for digest, each in self._known.items() if each.parameters is None]
        for digest in idle[:-_REMEMBERED]:
            del self._known[digest]
        return known.ref

    def _publish_once(self, digest: str) -> int:
        with self._lock:
            shared = self._known[digest]
            ref, parameters = shared.ref, shared.parameters
            if shared.published or parameters is None:
                return 0
        if ref.total > STREAM_MAX_BYTES // 2:
            raise ModelTooLarge(ref.total, STREAM_MAX_BYTES)
        if not self._declared:
            self._declare()
            self._declared = True
        for _ in range(_TRIES):
            sent = self._outbox.send_blob(self._address(), ref, ref.digest, parameters.tensors)
            # Every chunk is confirmed before any task names the model.
            if sent.outcome.result() is not PublishOutcome.UNROUTABLE:
                break
            logger.warning("the stream of models is gone: making it anew")
            self._declare()
        else:
            raise BrokerRefusal("the stream of models is gone: was it deleted by hand?")
        shared.published = True
        return ref.total

    def _address(self) -> Address:
        return Address(MODELS, self._job)


def _groups(asks: Sequence[Ask]) -> list[tuple[Parameters, list[str]]]:
    """Parameters that are not small, and the clients that get the very same object.

    A model that only one of several clients gets is its own affair and rides in its task.
    """
    groups: dict[int, tuple[Parameters, list[str]]] = {}
    for ask in asks:
        if isinstance(ask.ins, FitIns | EvaluateIns):
            parameters = ask.ins.parameters
            groups.setdefault(id(parameters), (parameters, []))[1].append(ask.client_id)
    return [
        (parameters, clients)
        for parameters, clients in groups.values()
        if size_of(parameters) > INLINE_BYTES and (len(clients) > 1 or len(groups) == 1)
    ]


def without_parameters(ins: FitIns | EvaluateIns) -> FitIns | EvaluateIns:
    """A copy of ``ins`` that lacks its parameters, for they are published apart."""
    return replace(ins, parameters=Parameters([], ins.parameters.tensor_type))
