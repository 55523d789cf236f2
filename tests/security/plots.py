"""What a hostile broker may do to messages: plots, for any choice of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flmq.transport import Message
from tests.security.hostile import HostileBroker, Passing, Plot

__all__ = [
    "Act",
    "HoldBack",
    "InsteadOfLater",
    "On",
    "OncePer",
    "Replay",
    "SwapBodies",
    "Which",
    "cut_short",
    "drop",
    "flip",
    "grow",
    "say",
    "set_header",
    "to_everyone",
    "twice",
]

Which = Callable[[Passing], bool]
Act = Callable[[Passing], Iterable[Passing]]


class On(Plot):
    """Does something to messages of a choice, ``after`` the first few, and so many ``times``."""

    def __init__(self, which: Which, act: Act, *, after: int = 0, times: int = 1 << 30) -> None:
        super().__init__()
        self._which, self._act = which, act
        self._after, self._times = after, times

    def __call__(self, passing: Passing, broker: HostileBroker) -> Iterable[Passing]:
        if not self._which(passing):
            return [passing]
        self._after -= 1
        if self._after >= 0 or self.done >= self._times:
            return [passing]
        self.done += 1
        return self._act(passing)


class OncePer(Plot):
    """Does something to the first message of each name that it is given."""

    def __init__(self, name: Callable[[Passing], str], act: Act, *, unless: Which) -> None:
        super().__init__()
        self._name, self._act, self._unless = name, act, unless
        self._met: set[str] = set()

    def __call__(self, passing: Passing, broker: HostileBroker) -> Iterable[Passing]:
        if self._unless(passing) or (name := self._name(passing)) in self._met:
            return [passing]
        self._met.add(name)
        self.done += 1
        return self._act(passing)


class Replay(Plot):
    """Sends each of the first ``remembered`` messages of a choice again, after each later one."""

    def __init__(self, which: Which, remembered: int = 3) -> None:
        super().__init__()
        self._which, self._most = which, remembered
        self._old: list[Passing] = []

    def __call__(self, passing: Passing, broker: HostileBroker) -> Iterable[Passing]:
        if not self._which(passing):
            return [passing]
        if len(self._old) < self._most:
            self._old.append(passing)
            return [passing]
        self.done += 1
        return [passing, *self._old]


class InsteadOfLater(Plot):
    """Sends the first message of a choice in place of each later one to the same address."""

    def __init__(self, which: Which) -> None:
        super().__init__()
        self._which = which
        self._first: dict[str, Passing] = {}

    def __call__(self, passing: Passing, broker: HostileBroker) -> Iterable[Passing]:
        if not self._which(passing):
            return [passing]
        first = self._first.setdefault(passing.address.routing_key, passing)
        self.done += first is not passing
        return [first]


class SwapBodies(Plot):
    """Exchanges the bodies of a message of one choice and the next of another."""

    def __init__(self, one: Which, other: Which, times: int = 1 << 30) -> None:
        super().__init__()
        self._which, self._times = (one, other), times
        self._held: dict[int, Passing] = {}

    def __call__(self, passing: Passing, broker: HostileBroker) -> Iterable[Passing]:
        mine = next((i for i, which in enumerate(self._which) if which(passing)), None)
        if mine is None or self.done >= self._times:
            return [passing]
        theirs = self._held.pop(1 - mine, None)
        if theirs is None:
            if mine in self._held:
                return [passing]  # this end's second: the first is still to be exchanged
            self._held[mine] = passing
            return []
        self.done += 1
        return [passing.with_body(theirs.body), theirs.with_body(passing.body)]


class HoldBack(Plot):
    """Lets each message of a choice pass only after the next of them: the order is turned."""

    def __init__(self, which: Which) -> None:
        super().__init__()
        self._which = which
        self._held: dict[str, Passing] = {}

    def __call__(self, passing: Passing, broker: HostileBroker) -> Iterable[Passing]:
        if not self._which(passing):
            return [passing]
        held = self._held.pop(passing.exchange, None)
        if held is None:
            self._held[passing.exchange] = passing
            return []
        self.done += 1
        return [passing, held]


def drop(passing: Passing) -> list[Passing]:
    """Lose it."""
    return []


def twice(passing: Passing) -> list[Passing]:
    """Deliver it twice."""
    return [passing, passing]


def flip(where: float) -> Act:
    """Turn a bit: 0 is the first byte, 1 the last."""

    def act(passing: Passing) -> list[Passing]:
        body = bytearray(passing.body)
        if body:
            body[round(where * (len(body) - 1))] ^= 1
        return [passing.with_body(bytes(body))]

    return act


def cut_short(passing: Passing) -> list[Passing]:
    """Lose its second half."""
    return [passing.with_body(passing.body[: len(passing.body) // 2])]


def grow(passing: Passing) -> list[Passing]:
    """Add a byte."""
    return [passing.with_body(passing.body + b"\0")]


def say(**properties: Any) -> Act:
    """Change properties."""
    return lambda passing: [passing.with_message(**properties)]


def set_header(name: str, value: int | str | Callable[[Any], Any]) -> Act:
    """Change a header."""

    def act(passing: Passing) -> list[Passing]:
        headers = dict(passing.message.headers)
        headers[name] = value(headers.get(name)) if callable(value) else value
        return [passing.with_message(headers=headers)]

    return act


def to_everyone(*client_ids: str) -> Act:
    """Deliver to each of these clients what was for one."""

    def act(passing: Passing) -> list[Passing]:
        site = passing.words[0]
        return [
            Passing(type(passing.address)(passing.exchange, f"{site}.{name}"), passing.message)
            for name in client_ids
        ]

    return act


def made(passing: Passing, body: bytes, **properties: Any) -> Passing:
    """A message of the broker's own to where another goes."""
    return Passing(passing.address, Message(body, **properties))
