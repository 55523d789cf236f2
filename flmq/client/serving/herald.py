"""Send the presence of a worker's clients: hello, heartbeats, and bye.

What is said of many clients goes in one message for some hundreds of them. Servers older than that
hear of the first of them alone; such a server shows its age in the roll call with which it greets
that one, and as long as its job lasts every client speaks for itself.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future

from flmq import __version__
from flmq.common.typing import Scalar
from flmq.messaging import Sender
from flmq.transport import PRESENCE, Address, PublishOutcome, presence_key
from flmq.wire import Companion, Presence, PresenceKind
from flmq.wire.bounds import size_of_properties

__all__ = ["Herald"]

_TOGETHER = 500
"""Clients of whom one message tells."""
_TOGETHER_BYTES = 128 * 1024
"""Bytes of their properties in one message, beyond which it tells of no more."""
_SOON = 0.2
"""Seconds for which an answer waits for others at most."""


class Herald:
    """Send presence messages for the clients of one process. Thread-safe."""

    def __init__(
        self,
        clients: Mapping[str, Mapping[str, Scalar]],
        site: str,
        every: float,
        clock: Callable[[], float] = time.time,
        *,
        alone: bool = False,
    ) -> None:
        """Announce ``clients`` (ids with properties), with a heartbeat ``every`` seconds.

        ``clock`` gives Unix seconds. ``alone``: each client speaks for itself, as it signs that.
        """
        self._clients = clients
        self._alone = alone
        self._clock = clock
        self._site = site
        self.every = every
        """Seconds between heartbeats; a server may ask for more frequent ones."""
        self.instance = secrets.token_hex(8)
        """Distinguishes this process from others with the same client ids."""
        self._left = threading.Event()
        """Set once bye is being said: nothing more is."""
        self._byes = threading.Thread(target=self._say_byes, name="flmq-byes", daemon=True)
        self._said: list[Future[PublishOutcome]] = []
        """The outcomes of what was last said of all clients."""
        self._older: set[str] = set()
        """Jobs whose servers hear of one client in a message."""
        self._lock = threading.Lock()
        self._stamped = 0
        """The time that the last message was given."""
        self._answers: list[tuple[str, str]] = []
        """Clients that are about to say hello, and the ids of the greetings that they answer."""
        self._since = 0.0
        """When the first of these was added, by the clock."""

    def speak_through(self, sender: Sender) -> None:
        """Send through ``sender`` from now on."""
        self._sender = sender

    def say_all(self, kind: PresenceKind) -> None:
        """Say something of every client; skip a heartbeat while the last one is unconfirmed."""
        if self._left.is_set():
            return
        if kind is PresenceKind.HEARTBEAT and not all(each.done() for each in self._said):
            return
        self._said = self._say(kind, [(client_id, "") for client_id in self._clients])

    def say_bye(self) -> threading.Thread:
        """Say bye of every client, once, and nothing of any from now on. Does not block.

        Returns the thread that says it, which waits where nobody takes what was said before.
        """
        with self._lock:
            if not self._left.is_set():
                self._left.set()
                self._byes.start()
        return self._byes

    def _say_byes(self) -> None:
        self._said = self._say(PresenceKind.BYE, [(client_id, "") for client_id in self._clients])

    def answer(self, client_id: str, greeting: str = "") -> None:
        """Say hello of a client soon, with others: at `flush`.

        ``greeting`` is the id of the server's message that this answers.
        """
        with self._lock:
            if not self._answers:
                self._since = self._clock()
            self._answers.append((client_id, greeting))
            full = len(self._answers) >= _TOGETHER
        if full or len(self._clients) == 1:
            self.flush()

    def is_due(self) -> bool:
        """Return whether answers have waited for others long enough."""
        return bool(self._answers) and not 0 <= self._clock() - self._since < _SOON

    @property
    def has_answers(self) -> bool:
        """Whether there is something to `flush`."""
        return bool(self._answers)

    def flush(self) -> None:
        """Send the answers that wait for others."""
        with self._lock:
            answers, self._answers = self._answers, []
        if not self._left.is_set():
            self._say(PresenceKind.HELLO, answers)

    def hear(self, job: str, *, hears_others: bool) -> None:
        """Learn whether the server of ``job`` hears of several clients in one message."""
        if hears_others:
            self._older.discard(job)
        elif job not in self._older:
            self._older.add(job)
            if len(self._clients) > 1:
                self.say_all(PresenceKind.HELLO)

    def forget(self, job: str) -> None:
        """Forget the server of a job that is over."""
        self._older.discard(job)

    def _say(
        self, kind: PresenceKind, clients: list[tuple[str, str]]
    ) -> list[Future[PublishOutcome]]:
        said = []
        for (first, greeting), *others in self._together(clients):
            hello = kind is PresenceKind.HELLO
            body = Presence(
                kind=kind,
                client_id=first,
                site=self._site,
                instance=self.instance,
                properties=self._clients[first],
                sent_unix_ms=self._stamp(),
                heartbeat_seconds=self.every,
                flmq_version=__version__,
                others=tuple(
                    Companion(other, self._clients[other] if hello else {}, answered)
                    for other, answered in others
                ),
            )
            sent = self._sender.send(
                Address(PRESENCE, presence_key(self._site, first)),
                body,
                mandatory=False,
                persistent=False,
                expiration=60.0,
                correlation_id=greeting,
            )
            said.append(sent.outcome)
        return said

    def _stamp(self) -> int:
        """Return the time in Unix milliseconds, and later than that of the message before.

        So a server can tell what is new from what somebody repeats, whatever the clock does.
        """
        with self._lock:
            self._stamped = max(int(self._clock() * 1000), self._stamped + 1)
            return self._stamped

    def _together(self, clients: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
        """Divide clients into those of whom one message tells."""
        most = 1 if self._older or self._alone else _TOGETHER
        batch: list[tuple[str, str]] = []
        size = 0
        for client in clients:
            its_size = size_of_properties(self._clients[client[0]].items())
            if batch and (len(batch) >= most or size + its_size > _TOGETHER_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(client)
            size += its_size
        if batch:
            yield batch
