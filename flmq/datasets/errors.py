"""Errors of requesting data; the user can fix both."""

from __future__ import annotations

from importlib.util import find_spec

from flmq.common.errors import UsageError

__all__ = ["CannotPartition", "MissingExtra", "check_installed"]


class CannotPartition(UsageError):
    """The samples cannot be partitioned as requested."""


class MissingExtra(UsageError):
    """A library is missing that an extra of flmq installs."""

    def __init__(self, what: str, library: str, extra: str = "demo") -> None:
        """Say ``what`` needs which ``library``, and which ``extra`` installs it."""
        self.library = library
        self.extra = extra
        super().__init__(f"{what} needs {library}, not installed here: pip install 'flmq[{extra}]'")


def check_installed(what: str, library: str, module: str) -> None:
    """Raise `MissingExtra` if ``library``, imported as ``module``, is missing for ``what``."""
    if find_spec(module) is None:
        raise MissingExtra(what, library)
