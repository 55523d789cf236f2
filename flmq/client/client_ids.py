"""The ids of the clients that one process serves: from a list, a file, a pattern or a count."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flmq.common.errors import InvalidClientId, UsageError
from flmq.common.id_files import read_id_file
from flmq.common.names import check_client_id, host_name
from flmq.common.typing import Scalar

__all__ = ["InvalidClientIds", "Share", "client_ids_of", "clients_of", "some_of"]

_Client = TypeVar("_Client")

_MOST = 1_000_000
"""Clients of one list: far more than a machine serves."""
_PATTERN = re.compile(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", re.DOTALL)


class InvalidClientIds(UsageError):
    """Client ids cannot be read, are not valid, or are given twice."""


def client_ids_of(given: Sequence[str] | str | int) -> list[str]:
    """Return the client ids that ``given`` names, in order.

    A list of ids; the path of a file of them, one a line, ``#`` begins a comment; a pattern such
    as ``site-a-{0..999}``, where ``{000..999}`` keeps the zeros; or a number of clients, whose
    names are made of the host's, the same at each start.

    Raises:
        InvalidClientIds: an id is not valid or given twice (it and its line are named), or there
            are none.
    """
    if isinstance(given, str) and given.isascii() and given.isdigit():
        given = int(given)
    if isinstance(given, int):
        return _counted(given)
    if not isinstance(given, str):
        return _listed(list(given))
    return _matched(given) if "{" in given else _read(given)


def _counted(count: int) -> list[str]:
    if not 1 <= count <= _MOST:
        raise InvalidClientIds(f"{count} clients: give 1 to {_MOST}")
    host = host_name()[:50]
    return [f"{host}-{number}" for number in range(count)]


def _listed(ids: list[str]) -> list[str]:
    for place, client_id in enumerate(ids, 1):
        _check(client_id, f"client id {place} of {len(ids)}")
    if not ids:
        raise InvalidClientIds("the list of client ids is empty: give one or more")
    return _each_once([(f"number {place}", client_id) for place, client_id in enumerate(ids, 1)])


def _read(path: str) -> list[str]:
    what = "the file of client ids"
    try:
        is_there = Path(path).exists()
    except (OSError, ValueError):  # it can be no path, such as a list of many ids
        is_there = False
    if not is_there:
        raise InvalidClientIds(
            f"{path[:200]}: there is no such file of client ids; a pattern is written "
            "name-{0..99}, a number of clients as 100"
        )
    ids = read_id_file(path, what, InvalidClientIds, none="there is nobody to serve")
    return _each_once([(f"{path}, line {number}", client_id) for number, client_id in ids])


def _matched(pattern: str) -> list[str]:
    match = _PATTERN.fullmatch(pattern)
    if match is None or "{" in match[1] + match[4] or "}" in match[1] + match[4]:
        raise InvalidClientIds(
            f"{pattern!r} is no pattern of client ids: write one range in it, as in "
            "site-a-{0..999}, or {000..999} to keep the zeros"
        )
    before, low, high, after = match.groups()
    if int(low) > int(high) or int(high) - int(low) >= _MOST:
        raise InvalidClientIds(
            f"{pattern!r} has the range {low} to {high}: it must rise, by less than {_MOST}"
        )
    padded = len(low) if low.startswith("0") and len(low) > 1 else 0
    ids = [f"{before}{number:0{padded}}{after}" for number in range(int(low), int(high) + 1)]
    _check(ids[0], f"pattern {pattern!r}")
    _check(ids[-1], f"pattern {pattern!r}")
    return ids


def _check(client_id: str, where: str) -> None:
    try:
        check_client_id(client_id)
    except InvalidClientId as error:
        raise InvalidClientIds(f"{where}: {error}") from error


def _each_once(placed: Sequence[tuple[str, str]]) -> list[str]:
    """Return the ids, without their places; refuse one that comes twice."""
    seen: dict[str, str] = {}
    for place, client_id in placed:
        if client_id in seen:
            raise InvalidClientIds(
                f"client id {client_id!r} is given twice ({seen[client_id]}; {place}): give each "
                "id once"
            )
        seen[client_id] = place
    return list(seen)


@dataclass(frozen=True, slots=True)
class Share:
    """One of equal parts of a list of clients, such as ``3/20``: each 20th, from the third on."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read ``number/of``.

        Raises:
            InvalidClientIds: it is something else.
        """
        match = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise InvalidClientIds(f"share {text!r}: write 1/4, 2/4, 3/4 or 4/4 for a quarter")
        return cls(int(match[1]), int(match[2]))

    def part(self, number: int, of: int) -> Share:
        """Return the ``number``-th of ``of`` parts of this share."""
        return Share(self.number + (number - 1) * self.of, self.of * of)

    def taken_of(self, clients: Sequence[_Client]) -> Sequence[_Client]:
        """Return the clients of a list that are in this share."""
        return clients[self.number - 1 :: self.of]

    def __str__(self) -> str:
        """Return it as it is parsed."""
        return f"{self.number}/{self.of}"


def clients_of(
    ids: Sequence[str], properties: Mapping[str, Scalar], share: Share | None = None
) -> dict[str, dict[str, Scalar]]:
    """Return the clients of a share of ``ids`` with their properties.

    As in a simulation, each has ``partition-id``, its place among all ``ids``, and
    ``num-partitions``; ``properties`` are those of every client.

    Raises:
        InvalidClientIds: the share has nobody in it.
    """
    share = share or Share()
    clients: dict[str, dict[str, Scalar]] = {
        client_id: {"partition-id": place, "num-partitions": len(ids), **properties}
        for place, client_id in share.taken_of(list(enumerate(ids)))
    }
    if not clients:
        raise InvalidClientIds(f"share {share} of {len(ids)} clients is empty: take fewer parts")
    return clients


def some_of(ids: Sequence[str]) -> str:
    """Return text that names some of the clients, and how many they are."""
    if len(ids) <= 3:
        return ", ".join(ids)
    return f"{len(ids)} clients ({ids[0]}, {ids[1]}, ... {ids[-1]})"
