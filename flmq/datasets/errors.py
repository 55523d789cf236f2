"""What can be wrong with a wish for data: both are the user's to mend."""

from __future__ import annotations

from importlib.util import find_spec

from flmq.common.errors import UsageError

__all__ = ["CannotPartition", "MissingExtra", "check_installed"]


class CannotPartition(UsageError):
    """The samples cannot be parted as asked."""


class MissingExtra(UsageError):
    """Something needs a library that only an extra of flmq installs."""

    def __init__(self, what: str, library: str, extra: str = "demo") -> None:
        """Say ``what`` needs which ``library``, and the ``extra`` that brings it."""
        self.library = library
        self.extra = extra
        super().__init__(f"{what} needs {library}, not installed here: pip install 'flmq[{extra}]'")


def check_installed(what: str, library: str, module: str) -> None:
    """Raise `MissingExtra` where ``what`` will miss its ``library``, imported as ``module``."""
    if find_spec(module) is None:
        raise MissingExtra(what, library)
