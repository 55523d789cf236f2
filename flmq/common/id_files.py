"""Read files of client ids: one a line; ``#`` begins a comment."""

from __future__ import annotations

from pathlib import Path

from flmq.common.errors import InvalidClientId, UsageError
from flmq.common.names import check_client_id

__all__ = ["read_id_file"]


def read_id_file(
    path: Path | str, what: str, error: type[UsageError], *, none: str
) -> list[tuple[int, str]]:
    """Return the client ids in a file in order, each with the number of its line.

    ``what`` names the file in errors, such as "the allow list"; ``none`` says what it means if it
    has no ids.

    Raises:
        error: the file cannot be read, has a line that is no client id, or no ids.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise error(
            f"{path}: {what} cannot be read ({problem}): give a text file with one client id a line"
        ) from problem
    ids = []
    for number, line in enumerate(lines, 1):
        client_id = line.partition("#")[0].strip()
        if not client_id:
            continue
        try:
            ids.append((number, check_client_id(client_id)))
        except InvalidClientId as problem:
            raise error(f"{path}, line {number}: {problem}") from problem
    if not ids:
        raise error(f"{path}: {what} names no client, so {none}: write one client id a line")
    return ids
