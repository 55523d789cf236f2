"""Send models that clients asked for, on a separate thread, without sending one twice at a time.

A client that waits for a large model asks for it every few seconds, and the thread that hears these
requests must stay free for other clients.

A client at another site may wait for what a slow link has yet to bring, and each further copy would
make it wait longer. So for it a model is sent again only when a link of `_SLOWEST_LINK` would have
brought the last copy, then after twice that time, and so on, up to `_LONGEST`.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from flmq.common.errors import MessageTooLarge, TransportClosed
from flmq.common.logger import logger
from flmq.common.typing import Parameters
from flmq.messaging import Sender
from flmq.transport import Address, PublishOutcome
from flmq.wire import BlobRef

__all__ = ["ModelDeliveries", "ModelDelivery"]

_AGAIN_AFTER = 3.0
"""Seconds after its confirm before a model may be sent again: until then clients can find it."""
_SLOWEST = 10 << 20
"""Assumed slowest reading speed, in bytes per second; gives the rest of that delay."""
_SLOWEST_LINK = 1 << 20
"""The same of a link between sites."""
_MOST_DOUBLINGS = 8
_LONGEST = 300.0
"""Seconds to which that time is doubled at most: a client asks for 600 s, and then gives up."""


@dataclass(frozen=True, slots=True)
class ModelDelivery:
    """A model to send, and its destination."""

    ref: BlobRef
    parameters: Parameters
    address: Address
    client_id: str = ""
    """The client it is for; "": all who read the stream."""
    expiration: float | None = None
    """Seconds until it expires in a queue; None: never."""
    persistent: bool = True
    far: bool = False
    """Whether it was asked for at another site than the server's."""


@dataclass(slots=True)
class _Sent:
    """When a model was sent to somebody, in monotonic seconds."""

    at: float = -math.inf
    """When it last arrived at the broker; infinite: it is being sent."""
    again: int = 0
    """How often it was sent on request."""
    arrived: bool = True
    told: bool = False
    """Whether it was said that another site has to wait for the next."""

    def next_at(self, delivery: ModelDelivery) -> float:
        """Return when it may be sent again."""
        if not self.arrived:
            return -math.inf  # at once
        size = delivery.ref.total
        if delivery.far:
            once = _AGAIN_AFTER + size / _SLOWEST_LINK
            doubled = once * 2.0 ** min(self.again, _MOST_DOUBLINGS)
            return self.at + max(once, min(doubled, _LONGEST))
        if self.again == 0 and self.at != math.inf:
            return -math.inf  # only published: at the server's own site it is there, or lost
        return self.at + _AGAIN_AFTER + size / _SLOWEST


class ModelDeliveries:
    """Sends models one after another. Thread-safe; its thread ends when none is waiting."""

    def __init__(self, sender: Sender, clock: Callable[[], float] = time.monotonic) -> None:
        """Send through ``sender``. ``clock`` returns monotonic seconds."""
        self._sender = sender
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[ModelDelivery] = deque()
        self._at_work = False
        self._sent_to: dict[str, dict[str, _Sent]] = {}
        """When a model was sent, by digest and client."""

    def published(self, digest: str) -> None:
        """Note that a shared model was published, before anybody asked for it."""
        with self._lock:
            self._sent_to.setdefault(digest, {})[""] = _Sent(self._clock())

    def send(self, delivery: ModelDelivery) -> bool:
        """Schedule a model, and return at once; False: it is being sent, or just arrived."""
        with self._lock:
            sent_to = self._sent_to.setdefault(delivery.ref.digest, {})
            sent = sent_to.setdefault(delivery.client_id, _Sent())
            left = sent.next_at(delivery) - self._clock()
            if left > 0:
                if delivery.far and not sent.told and left != math.inf:
                    sent.told = True
                    _say_that_it_waits(delivery, left)
                return False
            sent.at, sent.arrived, sent.told = math.inf, True, False
            self._waiting.append(delivery)
            if not self._at_work:
                self._at_work = True
                threading.Thread(target=self._work, name="flmq-models", daemon=True).start()
            return True

    def forget(self, digest: str) -> None:
        """Forget when an unneeded model was sent; a delivery in progress continues."""
        with self._lock:
            sent_to = self._sent_to.pop(digest, {})
            under_way = {client: sent for client, sent in sent_to.items() if sent.at == math.inf}
            if under_way:
                self._sent_to[digest] = under_way

    def _work(self) -> None:
        while (delivery := self._next()) is not None:
            try:
                sent = self._sender.send_blob(
                    delivery.address,
                    delivery.ref,
                    delivery.ref.name,
                    delivery.parameters.tensors,
                    expiration=delivery.expiration,
                    persistent=delivery.persistent,
                )
            except BaseException as error:  # still send the other models
                self._over(delivery, error)
            else:
                sent.outcome.add_done_callback(partial(self._sent, delivery))

    def _next(self) -> ModelDelivery | None:
        with self._lock:
            self._at_work = bool(self._waiting)
            return self._waiting.popleft() if self._waiting else None

    def _sent(self, delivery: ModelDelivery, outcome: Future[PublishOutcome]) -> None:
        """Handle the outcome of a delivery, on the publisher's thread."""
        error = outcome.exception()
        arrived = error is None and outcome.result() is PublishOutcome.CONFIRMED
        self._over(delivery, error, arrived=arrived)

    def _over(
        self, delivery: ModelDelivery, error: BaseException | None, *, arrived: bool = False
    ) -> None:
        with self._lock:
            if sent := self._sent_to.get(delivery.ref.digest, {}).get(delivery.client_id):
                # If it did not arrive, the next request is served at once.
                sent.at, sent.arrived = self._clock(), arrived
                sent.again += arrived
        if isinstance(error, MessageTooLarge):
            self._sender.cut_smaller(error)  # the models that are asked for next
        if error is not None and not isinstance(error, TransportClosed):
            whom = f"client {delivery.client_id}" if delivery.client_id else "all who ask for it"
            name = delivery.ref.digest[:12]
            logger.warning("model %s could not be sent to %s: %s", name, whom, error)


def _say_that_it_waits(delivery: ModelDelivery, left: float) -> None:
    whom = f"client {delivery.client_id}" if delivery.client_id else "clients"
    logger.info(
        "model %s is asked for by %s at another site, where a link may still be bringing it: it is "
        "sent again in %.0f s, if it is asked for then",
        *(delivery.ref.digest[:12], whom, left),
    )
