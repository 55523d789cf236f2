"""Which clients are admitted: those that read their own queue, and that the job does not refuse.

Anybody can publish a hello in any client's name. So a process that is not known yet is challenged
by a greeting: a roll call to the client's own queue, with a message id that nobody can guess. It is
admitted by the hello that has this id as its correlation id, for then the queue exists and is
consumed, and rounds ask no client that is not there. A greeting takes no memory: its id is a MAC of
the client's and the process's name. A process that is refused is greeted with the reason.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from flmq.messaging import Sender
from flmq.observe.events import RunEvent
from flmq.server.job_identity import Job
from flmq.server.presence.admission import Admission
from flmq.server.presence.tally import Tally
from flmq.server.presence.watcher import PresenceWatcher
from flmq.transport import TASKS, Address, PublishOutcome, everybody_key, task_key
from flmq.wire import Presence, PresenceKind, RollCall

__all__ = ["Doorkeeper"]

_GREETING_EXPIRES = 600.0
"""Seconds that a greeting stays in a queue that nobody consumes."""
_ROLL_CALL_EXPIRES = 30.0
"""Seconds that a roll call stays in the queue of a client that is away."""
_SITES = 1000
"""Maximum number of sites whose roll is called."""
_WINDOW = 5.0
"""Seconds within which no process is greeted again."""
_PROCESSES = 8
"""Maximum number of processes of one client id that are greeted within a window."""
_REMEMBERED = 100_000
"""Maximum number of client ids whose greetings are counted, and of greetings that wait."""
_AT_ONCE = 16
"""Greetings sent before another message is heard: one can name a thousand clients, and what it has
us say must not hold up replies."""
_REASON = 120
"""Characters of what is wrong with a client in a message that tells of many."""
_ELSEWHERE = "live at another site: a client id is for one client, at one site"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a client takes no part."""

    counted: str
    """The reason, to go on a sentence about clients. Hellos are counted by it: nothing that a hello
    may choose is in it."""
    named: str
    """The client, as the report of those that are counted names it."""
    told: str
    """What the client itself is told."""


@dataclass(frozen=True, slots=True)
class _Greeting:
    """What is to be sent to a process that is not admitted, or not yet."""

    client_id: str
    address: Address
    instance: str
    message_id: str
    refused: str


@dataclass(slots=True)
class _Window:
    """Which processes of one client id have been greeted since some moment."""

    since: float
    """Monotonic seconds."""
    instances: set[str] = field(default_factory=set)


class _Greeted:
    """Who was greeted lately. For one thread at a time."""

    def __init__(self) -> None:
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def may_greet(self, client_id: str, instance: str, now: float) -> bool:
        """Return whether this client had few greetings lately, and this process none; count it."""
        window = self._windows.get(client_id)
        if window is None or now - window.since >= _WINDOW:
            window = self._windows[client_id] = _Window(now)
            self._windows.move_to_end(client_id)
            self._forget(now)
        if instance in window.instances or len(window.instances) >= _PROCESSES:
            return False
        window.instances.add(instance)
        return True

    def _forget(self, now: float) -> None:
        """Forget windows that are over, and the oldest where there are too many."""
        while self._windows:
            oldest, window = next(iter(self._windows.items()))
            if now - window.since < _WINDOW and len(self._windows) <= _REMEMBERED:
                return
            del self._windows[oldest]


class Doorkeeper:
    """Pass on the presence messages of admitted clients, and greet the others.

    Thread-safe.
    """

    def __init__(
        self,
        job: Job,
        sender: Sender,
        presence: PresenceWatcher,
        emit: Callable[[RunEvent], None],
        *,
        heartbeat: float,
        admission: Admission,
        clock: Callable[[], float],
    ) -> None:
        """Admit clients of ``job`` to ``presence``.

        Args:
            job: whose epoch and secret make the greetings' ids.
            sender: sends them.
            presence: is passed what admitted clients say of themselves.
            emit: takes a note for the run's observers when hellos are dropped.
            heartbeat: seconds between the heartbeats that clients are asked for.
            admission: which clients may take part.
            clock: gives monotonic seconds.
        """
        self._job = job
        self._sender = sender
        self._presence = presence
        self._emit = emit
        self._heartbeat = heartbeat
        self._admission = admission
        self._clock = clock
        self._lock = threading.Lock()
        self._greeted = _Greeted()
        self._refused = _Greeted()
        """Apart: who is refused in a client's name must not keep the client from being greeted."""
        self._tally = Tally(job.name, "hellos were dropped: their clients", emit, clock)
        self._waiting: deque[_Greeting] = deque()
        self._sites: dict[str, None] = {}

    def hear(self, presence: Presence, correlation_id: str) -> None:
        """Handle a presence message, given the correlation id that it came with.

        It may tell of many clients of one process; each is admitted by itself.
        """
        if presence.dropped[0]:
            count, why = presence.dropped
            self._tally.drop(why[:_REASON], "are not valid", count)
        admitted = [
            one
            for one, greeting in presence.each(correlation_id)
            if self._admits(one, greeting, first=one is presence)
        ]
        self._presence.hear_all(admitted)
        if admitted and presence.kind is not PresenceKind.BYE:
            self.call_roll(presence.site)

    def _admits(self, presence: Presence, greeting: str, *, first: bool) -> bool:
        """Return whether what is said of one client counts; greet one that is not admitted yet."""
        order = self._admission.order
        if order is not None:
            old = order.problem(presence, answers=greeting == self._greeting_id(presence))
            if old:
                self._tally.drop(presence.client_id, old)
                return False
        if presence.kind is PresenceKind.HEARTBEAT and self._presence.recognizes(presence):
            return True
        refusal = self._refusal(presence)
        if refusal is not None:
            self._tally.drop(refusal.named, refusal.counted)
            if presence.kind is not PresenceKind.BYE and self._may_greet(self._refused, presence):
                self._greet(presence, refused=refusal.told, first=first)
            return False
        if self._is_admitted(presence) or greeting == self._greeting_id(presence):
            return True
        if self._may_greet(self._greeted, presence):
            self._greet(presence, first=first)
        return False

    def refuse(self, presence: Presence, why: str, do: str) -> None:
        """Count presence that nobody can believe, and tell its client why, and what to do."""
        self._tally.drop(presence.client_id, why)
        if presence.kind is not PresenceKind.BYE and self._may_greet(self._refused, presence):
            self._greet(presence, refused=f"{why}: {do}")

    def tick(self) -> None:
        """Report dropped hellos, once a minute. Call it about every second."""
        self._tally.tick()

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites whose roll was called."""
        with self._lock:
            return tuple(self._sites)

    def call_roll(self, site: str) -> None:
        """Ask every client of a site to say hello, unless they were asked before."""
        with self._lock:
            if site in self._sites or len(self._sites) >= _SITES:
                return
            self._sites[site] = None
        self._sender.send(
            Address(TASKS, everybody_key(site)),
            self._roll_call(),
            mandatory=False,
            expiration=_ROLL_CALL_EXPIRES,
            persistent=False,
        )

    def _roll_call(self, refused: str = "") -> RollCall:
        """Return what asks for hellos; ``refused``: why its reader takes no part."""
        job = self._job
        return RollCall(
            job.name, job.epoch, self._heartbeat, job.run_id, refused, hears_others=True
        )

    def _refusal(self, presence: Presence) -> _Refusal | None:
        """Return why the client takes no part; None if it does."""
        client_id = presence.client_id
        properties = None if presence.bare else presence.properties
        reason = self._admission.refusal(client_id, properties)
        if reason is not None:
            return _Refusal(reason, named=client_id, told=reason)
        if presence.kind is PresenceKind.BYE or not (site := self._presence.elsewhere(presence)):
            return None
        where = f"{client_id} of {site}, heard from {presence.site}"
        return _Refusal(_ELSEWHERE, named=where, told=f"{_ELSEWHERE} ({where})")

    def _is_admitted(self, presence: Presence) -> bool:
        """Return whether the process was admitted before. A bye passes: it admits nobody."""
        return presence.kind is PresenceKind.BYE or self._presence.recognizes(presence)

    def _greeting_id(self, presence: Presence) -> str:
        """Return the message id of a process's greeting: only a reader of the queue knows it."""
        who = f"hello/{self._job.epoch}/{presence.client_id}/{presence.instance}"
        return self._job.nonce(who).hex()

    def _may_greet(self, greeted: _Greeted, presence: Presence) -> bool:
        with self._lock:
            return greeted.may_greet(presence.client_id, presence.instance, self._clock())

    def greet(self) -> bool:
        """Send the next few greetings; return whether more wait. Call it after each message."""
        for _ in range(min(_AT_ONCE, len(self._waiting))):
            self._send(self._waiting.popleft())
        return bool(self._waiting)

    def _greet(self, presence: Presence, refused: str = "", *, first: bool = True) -> None:
        """Have a process greeted soon; if too many wait, not before it is heard again.

        The ``first`` client of a message comes before others that messages name by the thousand:
        after each message more are greeted than it can have first ones.
        """
        if len(self._waiting) >= _REMEMBERED and not first:
            self._tally.drop(presence.client_id, "came too many at a time")
            return
        address = Address(TASKS, task_key(presence.site, presence.client_id))
        message_id = self._greeting_id(presence)
        greeting = _Greeting(presence.client_id, address, presence.instance, message_id, refused)
        if first:
            self._waiting.appendleft(greeting)
        else:
            self._waiting.append(greeting)

    def _send(self, greeting: _Greeting) -> None:
        sent = self._sender.send(
            greeting.address,
            self._roll_call(greeting.refused),
            expiration=_GREETING_EXPIRES,
            # If a broker's restart loses it, its process is greeted again when it is next heard.
            persistent=False,
            message_id=greeting.message_id,
            correlation_id=greeting.instance,
            recipient=greeting.client_id,
        )
        if not greeting.refused:  # those are counted already
            sent.outcome.add_done_callback(partial(self._published, greeting.client_id))

    def _published(self, client_id: str, sent: Future[PublishOutcome]) -> None:
        """Learn, on the publisher's thread, whether the client has a queue."""
        if sent.exception() is None and sent.result() is PublishOutcome.UNROUTABLE:
            self._tally.drop(client_id, "have no queue")
