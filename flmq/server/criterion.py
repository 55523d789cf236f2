"""A predicate that selects the clients that a strategy may sample, and combinations of such."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from flmq.common.errors import UsageError
from flmq.server.client_proxy import ClientProxy

if TYPE_CHECKING:
    from flmq.server.criteria.failures import FailureLog

__all__ = ["Criterion", "InvalidCriterion"]


class InvalidCriterion(UsageError, ValueError):
    """A criterion was constructed with arguments that make no sense."""


class Criterion(ABC):
    """Subclass it and pass an instance to ``ClientManager.sample``.

    Only `select` must be there, as in Flower. `flmq.server.criteria` has some to use; they are
    combined with ``&``, ``|`` and ``~``.
    """

    include_away: bool = False
    """Whether clients that are away may be chosen too: their task waits in their queue."""

    @abstractmethod
    def select(self, client: ClientProxy) -> bool:
        """Return whether ``client`` may be sampled."""

    def why_not(self, client: ClientProxy) -> str:
        """Return in a few words why ``client``, which `select` refused, may not be sampled.

        Words that differ are counted apart, so nothing of what the client sent belongs in them.
        """
        return ""

    def awaited(self) -> Criterion | None:
        """Return what clients must fulfil for `sample` to wait until enough are there.

        None, as in Flower: it waits for clients of any kind, and chooses nobody if too few of them
        are selected.
        """
        return None

    def learn(self, failures: FailureLog) -> None:
        """Take note of who failed in recent rounds; called before each `sample`."""
        return

    def __repr__(self) -> str:
        """Show the class."""
        return type(self).__name__

    def __and__(self, other: Criterion) -> Criterion:
        """Select the clients that both select."""
        return Both(self, other)

    def __or__(self, other: Criterion) -> Criterion:
        """Select the clients that either selects."""
        return Either(self, other)

    def __invert__(self) -> Criterion:
        """Select the clients that this one does not."""
        return Others(self)


class _Pair(Criterion):
    """Two criteria. It chooses among clients that are away if one of them does."""

    sign = ""

    def __init__(self, first: Criterion, second: Criterion) -> None:
        for each in (first, second):
            if not isinstance(each, Criterion):
                raise InvalidCriterion(
                    f"a criterion cannot be combined with a {type(each).__name__}: give another "
                    "flmq Criterion"
                )
        self.first, self.second = first, second
        self.include_away = first.include_away or second.include_away

    def learn(self, failures: FailureLog) -> None:
        """Tell both."""
        self.first.learn(failures)
        self.second.learn(failures)

    def __repr__(self) -> str:
        """Show both."""
        return f"({self.first!r} {self.sign} {self.second!r})"


class Both(_Pair):
    """The clients that both criteria select."""

    sign = "&"

    def select(self, client: ClientProxy) -> bool:
        """Return whether both select it."""
        return self.first.select(client) and self.second.select(client)

    def why_not(self, client: ClientProxy) -> str:
        """Return the reason of the first that does not select it."""
        first = not self.first.select(client)
        return (self.first if first else self.second).why_not(client)

    def awaited(self) -> Criterion | None:
        """Wait for what each of them waits for."""
        first, second = self.first.awaited(), self.second.awaited()
        return Both(first, second) if first and second else first or second


class Either(_Pair):
    """The clients that one of two criteria selects."""

    sign = "|"

    def select(self, client: ClientProxy) -> bool:
        """Return whether one selects it."""
        return self.first.select(client) or self.second.select(client)

    def why_not(self, client: ClientProxy) -> str:
        """Return both reasons."""
        reasons = (self.first.why_not(client), self.second.why_not(client))
        return " and ".join(reason for reason in reasons if reason)

    def awaited(self) -> Criterion | None:
        """Wait if both do: else, what one of them selects needs no waiting."""
        first, second = self.first.awaited(), self.second.awaited()
        return Either(first, second) if first and second else None


class Others(Criterion):
    """The clients that a criterion does not select."""

    def __init__(self, other: Criterion) -> None:
        """Select those that ``other`` does not."""
        self.other = other
        self.include_away = other.include_away

    def select(self, client: ClientProxy) -> bool:
        """Return whether the other does not select it."""
        return not self.other.select(client)

    def why_not(self, client: ClientProxy) -> str:
        """Say what it fulfils."""
        return f"are {self.other!r}"

    def awaited(self) -> Criterion | None:
        """Wait if the other does."""
        other = self.other.awaited()
        return None if other is None else Others(other)

    def learn(self, failures: FailureLog) -> None:
        """Tell the other."""
        self.other.learn(failures)

    def __repr__(self) -> str:
        """Show the other."""
        return f"~{self.other!r}"
