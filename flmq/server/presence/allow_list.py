"""The allow list: the ids of the clients that may take part in a job, read from a file."""

from __future__ import annotations

from pathlib import Path

from flmq.common.errors import InvalidClientId, UsageError
from flmq.common.names import check_client_id

__all__ = ["InvalidAllowList", "read_allow_list"]


class InvalidAllowList(UsageError):
    """An allow list cannot be read, or names no client."""


def read_allow_list(path: Path | str) -> frozenset[str]:
    """Return the client ids in a file: one per line; ``#`` begins a comment.

    Raises:
        InvalidAllowList: the file cannot be read, has a line that is no client id, or no ids.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidAllowList(
            f"{path}: the allow list cannot be read ({error}): give a text file with one "
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
            f"{path}: the allow list names no client, so nobody could take part: write one client "
            "id a line, or give no list"
        )
    return frozenset(ids)
