"""How large a message the broker takes: asked once, and never waited for without a bound.

AMQP has no method to ask, so a message of the wanted size is published to an address where nobody
reads. A broker that takes it, and refuses the same size later, or never says what became of it, is
believed no longer: what it refuses says how large a message may be.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future

from flmq.common.errors import BrokerError, MessageTooLarge, TransportClosed
from flmq.common.logger import logger
from flmq.transport import Address, Message, Publisher, PublishOutcome
from flmq.wire.blobs import BLOB_CHUNK_BYTES

__all__ = ["ChunkSize"]

_PATIENCE = 30.0
"""Seconds for which an answer is waited for, once."""
_MEANWHILE = 64 * 1024
"""Bytes of a chunk while the answer is not known: what every broker takes."""
_LEAST = 1024
"""Bytes of the smallest chunk, whatever the broker says: 50 MB then are 50,000 messages."""


class ChunkSize:
    """The bytes of the largest chunk to send through one publisher. Thread-safe."""

    def __init__(self, publisher: Publisher, user_id: str | None, overhead: int) -> None:
        """Ask through ``publisher``; a chunk is ``overhead`` bytes longer on the wire."""
        self._publisher = publisher
        self._user_id = user_id
        self._overhead = overhead
        self._asking = threading.Lock()
        self._lock = threading.Lock()
        """Never held while anything is waited for: what is refused is learnt on any thread."""
        self._question: Future[PublishOutcome] | None = None
        self._known: int | None = None
        self._was_named = False
        """Whether the broker named a limit before."""

    def get(self, nobody: Address) -> int:
        """Return the size; ask at ``nobody`` if it is not known. Blocks for 30 s at most, once.

        Raises:
            TransportClosed: the publisher was closed meanwhile.
        """
        with self._asking:
            if self._known is None:
                self._ask(nobody)
        return self._known or _MEANWHILE

    def learn(self, refused: MessageTooLarge) -> bool:
        """Learn from a chunk that was refused; return whether smaller ones are to be sent.

        A broker that refuses what it said it takes is given half of that at most, down to 1 KiB.
        """
        chunk = refused.size - self._overhead
        with self._lock:
            known = self._known or BLOB_CHUNK_BYTES
            if chunk <= known:
                size = self._within(refused.limit)
                if size >= chunk or self._was_named:
                    size = max(_LEAST, min(size, chunk // 2))
                if size < known:
                    self._take(refused.limit, size)
            return self._known is not None and self._known < chunk

    def _ask(self, nobody: Address) -> None:
        patience = 0.0
        if self._question is None:
            body = bytes(BLOB_CHUNK_BYTES + self._overhead)
            message = Message(body, user_id=self._user_id, persistent=False)
            self._question = self._publisher.publish(nobody, message)
            patience = _PATIENCE
        try:
            self._question.result(patience)
        except TimeoutError:  # its answer is taken when it comes
            if patience:
                self._say("has not said for %.0f s whether it takes messages of 1 MiB", patience)
        except TransportClosed:
            raise
        except MessageTooLarge as error:
            with self._lock:
                self._take(error.limit, self._within(error.limit))
        except BrokerError as error:  # it is asked again, next time
            self._question = None
            self._say("does not say whether it takes messages of 1 MiB (%s)", error)
        else:
            with self._lock:
                self._known = self._known or BLOB_CHUNK_BYTES

    def _within(self, limit: int) -> int:
        """Return the chunk for a limit that the broker named: at most 1 MiB, at least 1 KiB."""
        return max(_LEAST, min(limit - self._overhead, BLOB_CHUNK_BYTES))

    def _take(self, limit: int, size: int) -> None:
        """Go by what the broker refused; under the lock."""
        self._known, self._was_named = size, True
        logger.warning(
            "the broker's max_message_size is %d bytes: large bodies go in chunks of %d bytes, and "
            "slowly; 1 MiB or more is better",
            limit,
            size,
        )

    def _say(self, what: str, about: object) -> None:
        logger.warning(
            f"the broker {what}: large bodies go in chunks of {_MEANWHILE} bytes until it does",
            about,
        )
