"""The queues that models are read from: declared here, or, where they are provisioned, not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from flmq.common.errors import BrokerAccessRefused, BrokerRefusal
from flmq.common.logger import logger
from flmq.transport import Consumer, StreamOffset, Topology, Transport, models_topology
from flmq.transport.provisioned import is_provisioned

__all__ = ["ModelQueues"]


class ModelQueues:
    """The site's stream of models, and clients' queues of their own. Thread-safe."""

    def __init__(self, transport: Transport, most: int) -> None:
        """Read over ``transport``; a queue that stood and is gone is tried ``most`` times."""
        self._transport = transport
        self._most = most
        self._declared = False
        self._stands: bool | None = None
        """Whether all is provisioned; None: not asked yet."""

    def declare(self, own: Topology) -> None:
        """Declare a client's queue, unless it stands."""
        if not self._are_provisioned():
            self._transport.declare(own)

    def declare_stream(self) -> None:
        """Declare the stream, so that the transport redeclares it if it is deleted."""
        if self._declared or self._are_provisioned():
            return
        # A client without permission to declare can read the stream that its server declared.
        with contextlib.suppress(BrokerAccessRefused):
            self._transport.declare(models_topology())
            self._declared = True

    def consumer(
        self,
        queue: str,
        prefetch: int,
        wait: Callable[[], None],
        offset: StreamOffset | None = None,
    ) -> Consumer:
        """Read a queue; one that is provisioned, and that somebody deleted, is waited for.

        ``wait`` waits some seconds, or raises to give up.
        """
        stands, tries = self._are_provisioned(), 0
        while True:
            try:
                return self._transport.consumer(
                    [queue], prefetch=prefetch, offset=offset, patient=stands
                )
            except BrokerRefusal as error:
                tries += 1
                if not stands or tries > self._most:
                    raise
                logger.warning(
                    "%s is gone, and is waited for (%s); to make it again: flmq provision",
                    queue,
                    error,
                )
            wait()

    def _are_provisioned(self) -> bool:
        if self._stands is None:
            self._stands = is_provisioned(self._transport)
        return self._stands
