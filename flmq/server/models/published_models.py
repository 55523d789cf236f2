"""Publish a shared model once to the stream, by digest, whatever the number of clients.

A model for a single client is sent to that client alone, when it asks for it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from flmq.common.errors import BrokerRefusal, MessageTooLarge, ModelTooLarge
from flmq.common.logger import logger
from flmq.common.parameter import parameters_of
from flmq.common.typing import Parameters
from flmq.messaging import Sender
from flmq.round import client_of
from flmq.server.job.request import Ask
from flmq.server.models.deliveries import ModelDeliveries, ModelDelivery
from flmq.transport import (
    DEFAULT_SITE,
    MODELS,
    STREAM_MAX_BYTES,
    TASKS,
    Address,
    PublishOutcome,
    own_model_key,
    task_key,
)
from flmq.wire import INLINE_BYTES, BlobRef, refer, size_of

__all__ = ["PublishedModels"]

_REMEMBERED = 8
"""How many models to remember that no open phase needs but a later one may."""
_TRIES = 5
"""How many times to publish a model if its stream keeps being deleted."""
_OWN_EXPIRES = 600.0
"""Seconds until a client's own model expires in its queue."""

_NOBODY = Address(TASKS, "!size")
"""Bound by nobody: no site has such a name."""


@dataclass(slots=True)
class _Shared:
    ref: BlobRef
    parameters: Parameters | None
    """None: no open phase needs it any more."""
    phases: int = 0
    """How many open phases need it."""
    published: bool = False
    own_of: set[str] = field(default_factory=set)
    """Clients for which it is their own model: each asks for it."""


class PublishedModels:
    """The published models of a job, shared and for single clients. Thread-safe."""

    def __init__(
        self,
        sender: Sender,
        job: str,
        declare: Callable[[], None] = lambda: None,
        *,
        home: str = DEFAULT_SITE,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
        key_of: Callable[[str, int], bytes] | None = None,
    ) -> None:
        """Publish for ``job`` through ``sender``; ``declare`` creates the stream if missing.

        ``home`` is the server's own site. ``clock`` returns monotonic seconds, ``unix_clock``
        seconds since 1970. ``key_of`` returns the content key of a model by its digest and the size
        of its chunks, for they are then encrypted; None: they are plain.
        """
        self._key_of = key_of
        self._sender = sender
        self._deliveries = ModelDeliveries(sender, clock)
        self._unix_clock = unix_clock
        self._declare = declare
        self._declared = False
        self._job = job
        self._home = home
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Shared] = OrderedDict()

    def refer(self, asks: Mapping[str, Ask]) -> dict[str, BlobRef]:
        """Return the model references of ``asks`` by ask name; leave out asks of small models.

        A shared model will be in the stream; a client asks for a model of its own. Reads each
        model's bytes once; publishes nothing.
        """
        now = max(1, int(self._unix_clock() * 1000))
        found = _groups(asks)
        size = self._sender.chunk_bytes(_NOBODY) if found else 0
        groups = [
            (
                self._refer(parameters, size, now if is_shared else 0),
                parameters,
                names,
            )
            for parameters, names, is_shared in found
        ]
        refs: dict[str, BlobRef] = {}
        with self._lock:
            # Shared models first: one that is also a client's own is then in the stream.
            for ref, parameters, names in sorted(groups, key=lambda each: not each[0].is_shared):
                known = self._enter(ref, parameters)
                if not known.ref.is_shared:
                    known.own_of.update(map(client_of, names))
                # The digest is of the bytes alone: here they may have other names than there.
                refs.update(dict.fromkeys(names, replace(known.ref, names=ref.names)))
            for digest in {ref.digest for ref in refs.values()}:
                self._known[digest].phases += 1
        return refs

    def _refer(self, parameters: Parameters, chunk_bytes: int, published_unix_ms: int) -> BlobRef:
        return self._keyed(
            refer(parameters, chunk_bytes=chunk_bytes, published_unix_ms=published_unix_ms)
        )

    def _keyed(self, ref: BlobRef) -> BlobRef:
        if self._key_of is None:
            return ref
        return replace(ref, key=self._key_of(ref.digest, ref.chunk_bytes))

    def publish(self, refs: Iterable[BlobRef]) -> int:
        """Publish the unpublished shared models of ``refs``; return the bytes sent. Blocks.

        Raises:
            ModelTooLarge: the model does not fit in the stream.
            MessageTooLarge: the broker does not take its chunks: see `cut_smaller`.
        """
        return sum(self._publish_once(digest) for digest in {ref.digest for ref in refs})

    def cut_smaller(self, refused: MessageTooLarge, refs: Mapping[str, BlobRef]) -> bool:
        """Cut the unpublished models of ``refs`` smaller, as the broker refused a chunk.

        Returns whether that is possible; `current` then gives their references.
        """
        if not self._sender.cut_smaller(refused):
            return False
        size = self._sender.chunk_bytes(_NOBODY)
        with self._lock:
            for digest in {ref.digest for ref in refs.values()}:
                known = self._known[digest]
                if not known.published and known.ref.chunk_bytes > size:
                    known.ref = self._keyed(replace(known.ref, chunk_bytes=size))
        return True

    def current(self, refs: Mapping[str, BlobRef]) -> dict[str, BlobRef]:
        """Return references as they are cut now."""
        with self._lock:
            return {
                name: replace(self._known[ref.digest].ref, names=ref.names)
                for name, ref in refs.items()
            }

    def release(self, refs: Iterable[BlobRef]) -> None:
        """Release the models of a phase that is over; remember that they were published."""
        with self._lock:
            for digest in {ref.digest for ref in refs}:
                shared = self._known[digest]
                shared.phases -= 1
                if shared.phases == 0:
                    shared.parameters = None
                    shared.own_of.clear()
                    self._deliveries.forget(digest)

    def at_hand(self, digest: str) -> Parameters | None:
        """Return the model of ``digest``; None: no open phase needs it."""
        with self._lock:
            shared = self._known.get(digest)
            return None if shared is None else shared.parameters

    def publish_again(self, digest: str, site: str = DEFAULT_SITE) -> bool:
        """Publish a model again for a client that cannot find it; False: it is not at hand.

        Returns at once; a model being published, or just published, is not sent again, nor one that
        may still be on its way to the client's ``site``. It goes to the streams of all sites.
        """
        with self._lock:
            shared = self._known.get(digest)
            if shared is None or shared.parameters is None or not shared.ref.is_shared:
                return False
            far = site != self._home
            self._deliveries.send(
                ModelDelivery(shared.ref, shared.parameters, self._address(), far=far)
            )
            return True

    def send_own(self, digest: str, client_id: str, site: str, *, with_tasks: bool = False) -> int:
        """Schedule sending a client its own model; return the bytes that this takes.

        It goes to the client's queue of models, or, ``with_tasks``, of tasks, where a client has
        no other. Returns at once; 0: it is not that client's model, is being sent, or just arrived.
        """
        with self._lock:
            shared = self._known.get(digest)
            if shared is None or shared.parameters is None or client_id not in shared.own_of:
                return 0
            key = task_key if with_tasks else own_model_key
            # Not persistent: a client that missed it asks again.
            delivery = ModelDelivery(
                shared.ref,
                shared.parameters,
                Address(TASKS, key(site, client_id)),
                client_id,
                expiration=_OWN_EXPIRES,
                persistent=False,
                far=site != self._home,
            )
            return shared.ref.total if self._deliveries.send(delivery) else 0

    def _enter(self, ref: BlobRef, parameters: Parameters) -> _Shared:
        """Keep a model at hand, and return its entry. Call with the lock held."""
        known = self._known.setdefault(ref.digest, _Shared(ref, parameters))
        if ref.is_shared and not known.ref.is_shared:
            known.ref = ref
        known.parameters = parameters
        self._known.move_to_end(ref.digest)
        idle = [digest for digest, each in self._known.items() if each.parameters is None]
        for digest in idle[:-_REMEMBERED]:
            del self._known[digest]
        return known

    def _publish_once(self, digest: str) -> int:
        with self._lock:
            shared = self._known[digest]
            ref, parameters = shared.ref, shared.parameters
            if shared.published or parameters is None or not ref.is_shared:
                return 0
        if ref.total > STREAM_MAX_BYTES // 2:
            raise ModelTooLarge(
                ref.total,
                STREAM_MAX_BYTES,
                f"a model of {ref.total} bytes cannot be published: the stream of models keeps "
                f"{STREAM_MAX_BYTES} bytes, and needs room for two; train a smaller model, or "
                "give parts of it",
            )
        if not self._declared:
            self._declare()
            self._declared = True
        for _ in range(_TRIES):
            sent = self._sender.send_blob(self._address(), ref, ref.name, parameters.tensors)
            # Wait until every chunk is confirmed, before any task names the model.
            if sent.outcome.result() is not PublishOutcome.UNROUTABLE:
                break
            logger.warning("the stream of models is gone: making it anew")
            self._declare()
        else:
            raise BrokerRefusal("the stream of models is gone: was it deleted by hand?")
        shared.published = True
        self._deliveries.published(digest)
        return ref.total

    def _address(self) -> Address:
        return Address(MODELS, self._job)


def _groups(asks: Mapping[str, Ask]) -> list[tuple[Parameters, list[str], bool]]:
    """Return each parameters object that is not small, its ask names, and whether it is shared.

    A model is shared unless only one of several asks gets it.
    """
    groups: dict[int, tuple[Parameters, list[str]]] = {}
    for name, ask in asks.items():
        if (parameters := parameters_of(ask.ins)) is not None:
            groups.setdefault(id(parameters), (parameters, []))[1].append(name)
    return [
        (parameters, names, len(names) > 1 or len(groups) == 1)
        for parameters, names in groups.values()
        if size_of(parameters) > INLINE_BYTES
    ]
