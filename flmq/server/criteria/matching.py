"""Which clients a criterion selects, and in words that stay short, why not more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from flmq.common.cleaning import one_line
from flmq.common.errors import NotEnoughClients
from flmq.server.client_proxy import ClientProxy
from flmq.server.criterion import Criterion

__all__ = ["Matching", "TooFewMatch", "match"]

_MOST_REASONS = 5
_LONGEST = 120
"""Characters of a criterion, or of a reason."""


@dataclass(frozen=True, slots=True)
class Matching:
    """The clients of some that a criterion selects."""

    clients: Sequence[ClientProxy]
    criterion: Criterion | None
    others: Counter[str]
    """How many it did not select, by reason; an empty reason if it gives none."""

    @property
    def name(self) -> str:
        """The criterion, in short."""
        if isinstance(self.criterion, Criterion):
            return one_line(repr(self.criterion), _LONGEST)
        return type(self.criterion).__name__

    @property
    def others_by_reason(self) -> str:
        """Return text such as ``(the others: 3 have another region, 1 have no gpu)``."""
        found = [(why, count) for why, count in self.others.most_common() if why]
        said = [f"{count} {one_line(why, _LONGEST)}" for why, count in found[:_MOST_REASONS]]
        if more := sum(count for _, count in found[_MOST_REASONS:]):
            said.append(f"{more} for other reasons")
        return f" (the others: {', '.join(said)})" if said else ""


class TooFewMatch(NotEnoughClients):
    """Fewer clients than needed that a criterion selects came within the allowed time."""

    def __init__(
        self, wanted: int, matching: Matching, waited: float, away: tuple[str, ...] = ()
    ) -> None:
        """Name how many are ``wanted``, how many match and why not more, and the time in s."""
        super().__init__(wanted, len(matching.clients), waited, away)
        here = self.have + matching.others.total()
        text = (
            f"{wanted} clients that fulfil {matching.name} are needed, and {self.have} of the "
            f"{here} that came within {waited:g} s do{matching.others_by_reason}. Start more such "
            "clients on this broker and virtual host, or lower min_available_clients"
        )
        self.args = (text,)


def match(clients: Sequence[ClientProxy], criterion: Criterion | None) -> Matching:
    """Return which of ``clients`` the criterion selects: all if it is None."""
    if criterion is None:
        return Matching(clients, None, Counter())
    selected: list[ClientProxy] = []
    others: Counter[str] = Counter()
    for client in clients:
        if criterion.select(client):
            selected.append(client)
        else:
            # It may be any object with a method `select`, as in Flower.
            others[criterion.why_not(client) if isinstance(criterion, Criterion) else ""] += 1
    return Matching(selected, criterion, others)
