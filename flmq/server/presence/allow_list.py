"""The list of clients that may take part in a job, from a file."""

from __future__ import annotations

from pathlib import Path

from flmq.common.errors import InvalidClientId, UsageError
from flmq.common.names import check_client_id

__all__ = ["InvalidAllowList", "read_allow_list"]


class InvalidAllowList(UsageError):
    """A list of clients that cannot be read, or lets nobody in."""


def read_allow_list(path: Path | str) -> frozenset[str]:
    """The client ids in a file: one a line; what follows ``#`` is for people.

    Raises:
        InvalidAllowList: it cannot be read, holds what is no client id, or none.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidAllowList(
            f"{path}: the list of clients cannot be read ({error}): give a text file with one "
            "client id a line"
        ) from error
    ids = set()
    for number, line in enumerate(lines, 1):
        client_id = line.partition("#")[0].strip()
        if not client_id:
            continue
        try:
            ids.add(check_client_id(client_id))
        except InvalidClientId as error:
            raise InvalidAllowList(f"{path}, line {number}: {error}") from error
    if not ids:
        raise InvalidAllowList(
            f"{path}: the list of clients names none, so nobody could take part: write one client "
            "id a line, or leave the list away"
        )
    return frozenset(ids)
