"""Which clients may take part in a job: by their ids, and by what their hello says of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from flmq.common.typing import Scalar
from flmq.server.presence.order import PresenceOrder

__all__ = ["Admission"]


@dataclass(frozen=True, slots=True)
class Admission:
    """What a client must have to take part; by default nothing."""

    allowed: Collection[str] | None = None
    """Ids of the clients that may take part; None: all."""
    required: Mapping[str, Scalar] = field(default_factory=dict)
    """Properties that its hello must have, with these values."""
    order: PresenceOrder | None = None
    """Refuses what is said again, where presence is signed; None: it is not signed."""

    def refusal(self, client_id: str, properties: Mapping[str, Scalar] | None) -> str | None:
        """Return why the client takes no part, to go on a sentence about it; None if it does.

        ``properties`` None: not known yet.
        """
        if self.allowed is not None and client_id not in self.allowed:
            return "are not among those that are allowed"
        if properties is None:
            return None
        for name, wanted in self.required.items():
            if (has := properties.get(name)) != wanted or type(has) is not type(wanted):
                return f"lack the property {name}={wanted!r}, which this job requires"
        return None
