"""Who is let in: clients that read their own queue, and are on the list where there is one.

Anybody can say hello in any name. Whoever is new is greeted by a message to its own queue, and
takes part once it has told what that message was called: so there is a queue, somebody reads it,
and rounds ask no ghosts. What is greeted needs no memory: the word is made of the name.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from flmq.common.logger import logger
from flmq.messaging import Sender
from flmq.observe.events import Note, RunEvent
from flmq.server.asks.job import Job
from flmq.server.presence.watcher import PresenceWatcher
from flmq.transport import TASKS, Address, PublishOutcome, task_key
from flmq.wire import Presence, PresenceKind, RollCall

__all__ = ["Doorkeeper"]

_GREETING_EXPIRES = 600.0
_WINDOW = 5.0
"""Seconds within which no process is greeted again."""
_PROCESSES = 8
"""Processes of one client id that are greeted within them, at most."""
_REMEMBERED = 100_000
"""Client ids whose greetings are counted, at most."""
_SAY_EVERY = 60.0
_SHOWN = 5
"""Client ids that are named of those that were turned away."""


@dataclass(slots=True)
class _Lately:
    """Whom was greeted as one client id, from some moment on."""

    since: float
    instances: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _TurnedAway:
    """Whose hellos were dropped for one reason, since that was last told."""

    count: int = 0
    client_ids: list[str] = field(default_factory=list)
    """The first of them."""
    said: float | None = None
    """When it was last told, in monotonic seconds."""


class Doorkeeper:
    """Hears what clients say of themselves first. Thread-safe."""

    def __init__(
        self,
        job: Job,
        sender: Sender,
        presence: PresenceWatcher,
        emit: Callable[[RunEvent], None],
        *,
        heartbeat: float,
        allowed: Collection[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Let clients in to ``presence``; ``allowed``: only these, None: all.

        ``heartbeat`` is what clients are asked for, in seconds.
        """
        self._job = job
        self._sender = sender
        self._presence = presence
        self._emit = emit
        self._heartbeat = heartbeat
        self._allowed = None if allowed is None else frozenset(allowed)
        self._clock = clock
        self._lock = threading.Lock()
        self._lately: OrderedDict[str, _Lately] = OrderedDict()
        self._turned_away: dict[str, _TurnedAway] = {}

    def hear(self, presence: Presence, answers: str) -> None:
        """Take in what a client says of itself; ``answers`` is what it says that it answers."""
        if self._allowed is not None and presence.client_id not in self._allowed:
            self._turn_away(presence.client_id, "are not among those that are allowed")
        elif self._is_known(presence) or answers == self._word(presence):
            self._presence.hear(presence)
        elif self._may_be_greeted(presence):
            self._greet(presence)

    def tick(self) -> None:
        """Tell who was turned away, once a minute. Call it every second or so."""
        with self._lock:
            now = self._clock()
            due = [
                (reason, each)
                for reason, each in self._turned_away.items()
                if each.count and (each.said is None or now - each.said >= _SAY_EVERY)
            ]
            lines = []
            for reason, each in due:
                more = ", ..." if each.count > len(each.client_ids) == _SHOWN else ""
                names = ", ".join(each.client_ids) + more
                lines.append(f"{each.count} hellos were dropped: their clients {reason} ({names})")
                self._turned_away[reason] = _TurnedAway(said=now)
        for line in lines:
            logger.warning("job %s: %s", self._job.name, line)
            self._emit(Note(line))

    def _is_known(self, presence: Presence) -> bool:
        """Whether the speaker has been let in before; a bye lets nobody in."""
        return presence.kind is PresenceKind.BYE or self._presence.recognizes(presence)

    def _word(self, presence: Presence) -> str:
        """What the greeting of a process is called: nobody knows it who does not read it."""
        who = f"hello/{self._job.epoch}/{presence.client_id}/{presence.instance}"
        return self._job.nonce(who).hex()

    def _may_be_greeted(self, presence: Presence) -> bool:
        """Whether not too many hellos have come in this client's name lately."""
        now = self._clock()
        with self._lock:
            lately = self._lately.get(presence.client_id)
            if lately is None or now - lately.since >= _WINDOW:
                lately = self._lately[presence.client_id] = _Lately(now)
                self._lately.move_to_end(presence.client_id)
                if len(self._lately) > _REMEMBERED:
                    self._lately.popitem(last=False)
            if presence.instance in lately.instances or len(lately.instances) >= _PROCESSES:
                return False
            lately.instances.add(presence.instance)
            return True

    def _greet(self, presence: Presence) -> None:
        sent = self._sender.send(
            Address(TASKS, task_key(presence.site, presence.client_id)),
            RollCall(self._job.name, self._job.epoch, self._heartbeat, self._job.run_id),
            expiration=_GREETING_EXPIRES,
            message_id=self._word(presence),
            correlation_id=presence.instance,
        )
        sent.outcome.add_done_callback(partial(self._greeted, presence.client_id))

    def _greeted(self, client_id: str, sent: Future[PublishOutcome]) -> None:
        """Hear from the publisher's thread whether there is anybody to greet."""
        if sent.exception() is None and sent.result() is PublishOutcome.UNROUTABLE:
            self._turn_away(client_id, "have no queue")

    def _turn_away(self, client_id: str, reason: str) -> None:
        with self._lock:
            each = self._turned_away.setdefault(reason, _TurnedAway())
            each.count += 1
            if len(each.client_ids) < _SHOWN and client_id not in each.client_ids:
                each.client_ids.append(client_id)
