"""Send the presence of a worker's clients: hello, heartbeats, and bye."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from flmq import __version__
from flmq.common.typing import Scalar
from flmq.messaging import Sender
from flmq.transport import PRESENCE, Address, PublishOutcome, presence_key
from flmq.wire import Presence, PresenceKind

__all__ = ["Herald"]


class Herald:
    """Send presence messages for the clients of one process."""

    def __init__(
        self,
        clients: Mapping[str, Mapping[str, Scalar]],
        site: str,
        every: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Announce ``clients`` (ids with properties), with a heartbeat ``every`` seconds.

        ``clock`` gives Unix seconds.
        """
        self._clients = clients
        self._clock = clock
        self._site = site
        self.every = every
        """Seconds between heartbeats; a server may ask for more frequent ones."""
        self.instance = secrets.token_hex(8)
        """Distinguishes this process from others with the same client ids."""
        self._said: dict[str, Future[PublishOutcome]] = {}
        """The outcome of each client's last message."""

    def speak_through(self, sender: Sender) -> None:
        """Send through ``sender`` from now on."""
        self._sender = sender

    def say_all(self, kind: PresenceKind) -> None:
        """Send a presence message for every client."""
        for client_id in self._clients:
            self.say(kind, client_id)

    def say(self, kind: PresenceKind, client_id: str, *, greeting: str = "") -> None:
        """Send a presence message; skip a heartbeat while the previous message is unconfirmed.

        ``greeting`` is the id of the server's message that this one answers.
        """
        said = self._said.get(client_id)
        if kind is PresenceKind.HEARTBEAT and said is not None and not said.done():
            return
        body = Presence(
            kind=kind,
            client_id=client_id,
            site=self._site,
            instance=self.instance,
            properties=self._clients[client_id],
            sent_unix_ms=int(self._clock() * 1000),
            heartbeat_seconds=self.every,
            flmq_version=__version__,
        )
        address = Address(PRESENCE, presence_key(self._site, client_id))
        sent = self._sender.send(
            address,
            body,
            mandatory=False,
            persistent=False,
            expiration=60.0,
            correlation_id=greeting,
        )
        self._said[client_id] = sent.outcome
