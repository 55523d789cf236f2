"""Send models that clients asked for, on a separate thread, without sending one twice at a time.

A client that waits for a large model asks for it every few seconds, and the thread that hears these
requests must stay free for other clients.
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

from flmq.common.errors import TransportClosed
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


class ModelDeliveries:
    """Sends models one after another. Thread-safe; its thread ends when none is waiting."""

    def __init__(self, sender: Sender, clock: Callable[[], float] = time.monotonic) -> None:
        """Send through ``sender``. ``clock`` returns monotonic seconds."""
        self._sender = sender
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[ModelDelivery] = deque()
        self._at_work = False
        self._again_at: dict[str, dict[str, float]] = {}
        """When a model may be sent again, by digest and client; infinite: it is being sent."""

    def send(self, delivery: ModelDelivery) -> bool:
        """Schedule a model, and return at once; False: it is being sent, or just arrived."""
        with self._lock:
            again_at = self._again_at.setdefault(delivery.ref.digest, {})
            if self._clock() < again_at.get(delivery.client_id, -math.inf):
                return False
            again_at[delivery.client_id] = math.inf
            self._waiting.append(delivery)
            if not self._at_work:
                self._at_work = True
                threading.Thread(target=self._work, name="flmq-models", daemon=True).start()
            return True

    def forget(self, digest: str) -> None:
        """Forget when an unneeded model was sent; a delivery in progress continues."""
        with self._lock:
            again_at = self._again_at.pop(digest, {})
            under_way = {client: when for client, when in again_at.items() if when == math.inf}
            if under_way:
                self._again_at[digest] = under_way

    def _work(self) -> None:
        while (delivery := self._next()) is not None:
            try:
                sent = self._sender.send_blob(
                    delivery.address,
                    delivery.ref,
                    delivery.ref.digest,
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
        # If it did not arrive, the next request is served at once.
        reading = _AGAIN_AFTER + delivery.ref.total / _SLOWEST if arrived else 0.0
        with self._lock:
            if (again_at := self._again_at.get(delivery.ref.digest)) is not None:
                again_at[delivery.client_id] = self._clock() + reading
        if error is not None and not isinstance(error, TransportClosed):
            whom = f"client {delivery.client_id}" if delivery.client_id else "all who ask for it"
            name = delivery.ref.digest[:12]
            logger.warning("model %s could not be sent to %s: %s", name, whom, error)
