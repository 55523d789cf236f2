"""The allow list: the ids of the clients that may take part in a job, read from a file."""

from __future__ import annotations

from pathlib import Path

from flmq.common.errors import UsageError
from flmq.common.id_files import read_id_file

__all__ = ["InvalidAllowList", "read_allow_list"]


class InvalidAllowList(UsageError):
    """An allow list cannot be read, or names no client."""


def read_allow_list(path: Path | str) -> frozenset[str]:
    """Return the client ids in a file: one per line; ``#`` begins a comment.

    Raises:
        InvalidAllowList: the file cannot be read, has a line that is no client id, or no ids.
    """
    none = "nobody could take part (give no list to let in everybody)"
    ids = read_id_file(path, "the allow list", InvalidAllowList, none=none)
    return frozenset(client_id for _, client_id in ids)
