"""Who speaks: a message counts as a client's only if the broker's word for it agrees.

On a provisioned virtual host (`flmq.transport.provisioned`) the broker asks for a user's permission
on each routing key, and checks the name that a message gives as its sender. So the id in the body,
the id in the key and the user must be one. Where a login is everybody's, none of that says anything
of a client: there neither key nor user is looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from flmq.transport import AGGREGATOR, Delivery, client_of_key
from flmq.wire import aggregator_name

__all__ = ["Mismatch", "Speakers", "speaker_of"]

_SHOWN = 80
"""Characters of a name that a message chose itself."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a message is not of whom it names."""

    counted: str
    """The reason, to go on a sentence about messages, without what a message may choose."""
    named: str
    """Whom it names, and who sent it."""

    def __str__(self) -> str:
        """Return the reason with its names."""
        return f"messages like it {self.counted} ({self.named})"


class Speakers:
    """Who may speak for whom. Thread-safe."""

    def __init__(
        self, *, required: bool, users: Mapping[str, Collection[str]] | None = None
    ) -> None:
        """Believe the broker alone if ``required``, as on a provisioned virtual host.

        ``users`` maps users to those that they speak for besides the client of their own name:
        client ids, and ``!<site>`` for the site's aggregator.
        """
        self.required = required
        self._users = users or {}
        self._named = {one for ids in self._users.values() for one in ids if one.startswith("!")}
        self._lock = threading.Lock()
        self._aggregators: dict[str, set[str]] = {}
        """By site: users that spoke as its aggregator, under a key that is the aggregator's own."""

    def mismatch(
        self, delivery: Delivery, ids: Iterable[str | None], site: str | None = None
    ) -> Mismatch | None:
        """Return why a message is not of all ``ids`` that it names; None if it is.

        The first of them is the one in its key, at ``site`` if it names one. An aggregator is named
        ``!<site>``; it may also pass on what a client of its site has sent.
        """
        if not self.required:
            return None
        user, key = delivery.message.user_id, delivery.routing_key
        for place, one in enumerate(ids):
            reason = self._reason(delivery, one, site, is_first=place == 0)
            if reason:
                return Mismatch(reason, f"{one}, sent by {user} under {key[:_SHOWN]}")
        return None

    def _reason(
        self, delivery: Delivery, one: str | None, site: str | None, *, is_first: bool
    ) -> str:
        message, key = delivery.message, delivery.routing_key
        there = _site_of(key)
        if message.copied:
            return "have a header CC or BCC, by which they could reach others"
        if message.user_id is None:
            return "do not say who their user is"
        if one is None or (is_first and one != speaker_of(key)) or site not in (None, there):
            return "are published under another key than that of whom they name"
        if not self._may_speak(message.user_id, one, there):
            return (
                "are published by a user who does not speak for whom they name (one that speaks "
                "for several must be in the file that --federation names)"
            )
        return ""

    def _may_speak(self, user: str, one: str, site: str) -> bool:
        its = self._users.get(user, ())
        if one.startswith("!"):
            if one in self._named and one not in its:
                return False
            with self._lock:
                self._aggregators.setdefault(site, set()).add(user)
            return True
        if user == one or one in its or aggregator_name(site) in its:
            return True
        with self._lock:
            return user in self._aggregators.get(site, ())


def speaker_of(routing_key: str) -> str | None:
    """Return the client in a routing key, or the aggregator as it is named; None: neither."""
    found = client_of_key(routing_key)
    return aggregator_name(_site_of(routing_key)) if found == AGGREGATOR else found


def _site_of(routing_key: str) -> str:
    return routing_key.partition(".")[0]
