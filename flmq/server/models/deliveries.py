"""Models that clients asked for, on their way: each once at a time, on a thread of its own.

A client that waits for a large model asks for it every few seconds, and whoever hears that has
other clients to hear.
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
"""Seconds after its confirm within which no model is sent once more: whoever asks finds it."""
_SLOWEST = 10 << 20
"""Bytes a second at which a client is thought to read it, before it may ask for it again."""


@dataclass(frozen=True, slots=True)
class ModelDelivery:
    """A model that is to be sent, and where."""

    ref: BlobRef
    parameters: Parameters
    address: Address
    client_id: str = ""
    """Whom it is for; "": everybody who reads the stream."""
    expiration: float | None = None
    """Seconds for which it waits in a queue."""
    persistent: bool = True


class ModelDeliveries:
    """Sends models, one after the other. Thread-safe; its thread lives while there are any."""

    def __init__(self, sender: Sender, clock: Callable[[], float] = time.monotonic) -> None:
        """Send through ``sender``. ``clock`` gives seconds."""
        self._sender = sender
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[ModelDelivery] = deque()
        self._at_work = False
        self._again_at: dict[str, dict[str, float]] = {}
        """By digest and client, when a model may be sent once more; infinite: it is under way."""

    def send(self, delivery: ModelDelivery) -> bool:
        """Have a model sent, and return at once; False: it is under way, or just arrived."""
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
        """Forget when a model was sent that nobody needs any more; what is under way goes on."""
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
            except BaseException as error:  # the others are to be sent all the same
                self._over(delivery, error)
            else:
                sent.outcome.add_done_callback(partial(self._sent, delivery))

    def _next(self) -> ModelDelivery | None:
        with self._lock:
            self._at_work = bool(self._waiting)
            return self._waiting.popleft() if self._waiting else None

    def _sent(self, delivery: ModelDelivery, outcome: Future[PublishOutcome]) -> None:
        """Hear from the publisher's thread what became of it."""
        error = outcome.exception()
        arrived = error is None and outcome.result() is PublishOutcome.CONFIRMED
        self._over(delivery, error, arrived=arrived)

    def _over(
        self, delivery: ModelDelivery, error: BaseException | None, *, arrived: bool = False
    ) -> None:
        # Where it did not arrive, whoever asks again is sent it at once.
        reading = _AGAIN_AFTER + delivery.ref.total / _SLOWEST if arrived else 0.0
        with self._lock:
            if (again_at := self._again_at.get(delivery.ref.digest)) is not None:
                again_at[delivery.client_id] = self._clock() + reading
        if error is not None and not isinstance(error, TransportClosed):
            whom = f"client {delivery.client_id}" if delivery.client_id else "all who ask for it"
            name = delivery.ref.digest[:12]
            logger.warning("model %s could not be sent to %s: %s", name, whom, error)
