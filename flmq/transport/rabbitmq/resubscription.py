"""When a consumer that lost its channel subscribes again, and when that is pointless."""

from __future__ import annotations

import time
from collections.abc import Callable

from flmq.common.errors import BrokerAccessRefused, BrokerError, BrokerRefusal, ResourceLocked
from flmq.transport.rabbitmq.errors import reply_code
from flmq.transport.rabbitmq.subscription import Subscription
from flmq.transport.retry import Backoff, current_pace

__all__ = ["Resubscription"]


class Resubscription:
    """The tries of one consumer. For its connection's thread only."""

    def __init__(
        self, subscription: Subscription, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start trying for ``subscription``. ``clock`` gives seconds."""
        self._wanted = subscription
        self._clock = clock
        self._backoff = Backoff()
        self._trying_since = clock()
        self._consuming_since: float | None = None
        self._was_open = False
        self.not_restored: BrokerError | None = None
        """Why the topology could not be declared again; None if it could."""

    def succeeded(self) -> None:
        """Note that every queue is being consumed."""
        self._consuming_since = self._clock()
        self._was_open = True

    def lost(self) -> None:
        """Note that the channel is gone."""
        if self._consuming_since is None:
            return
        self._trying_since = self._clock()
        if self._trying_since - self._consuming_since > current_pace().healthy:
            self._backoff.reset()
        self._consuming_since = None

    def wait(self, problem: BrokerError) -> float:
        """Return the seconds until the next try, after ``problem``."""
        seconds = self._backoff.next()
        if isinstance(problem, BrokerAccessRefused) or self.waits_for(problem):
            return current_pace().refused
        if isinstance(problem, ResourceLocked):
            # The holder may be gone any moment: a standby should take over soon after.
            return min(seconds, current_pace().locked)
        return seconds

    def waits_for(self, problem: BrokerError) -> bool:
        """Return whether somebody deleted a queue that is waited for until it is made again."""
        gone = self._was_open and reply_code(problem.__cause__) == 404
        return gone and self._wanted.patient

    def is_final(self, problem: BrokerError) -> bool:
        """Return whether trying again is pointless."""
        if isinstance(problem, ResourceLocked):
            patience = self._wanted.lock_patience if self._was_open else current_pace().lock
            return self._clock() - self._trying_since > patience
        if self.waits_for(problem):
            return False
        if reply_code(problem.__cause__) == 404:
            ours = all(self._wanted.declared(queue) for queue in self._wanted.queues)
            # A queue that was deleted again during declaration is declared once more.
            refused = isinstance(self.not_restored, BrokerRefusal)
            return not ours or (refused and reply_code(self.not_restored) != 404)
        if isinstance(problem, BrokerAccessRefused):
            # A permission that was once there may return; one never granted is reported by open().
            return not self._was_open
        return isinstance(problem, BrokerRefusal)
