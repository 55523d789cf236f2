"""The error of a tracker whose package is missing."""

from __future__ import annotations

from importlib import import_module

from flmq.common.errors import UsageError

__all__ = ["TrackerNotInstalled", "check_tracker"]


class TrackerNotInstalled(UsageError):
    """The package of a tracker is not installed."""

    def __init__(self, name: str, package: str, extra: str) -> None:
        """Name the tracker, its ``package``, and the ``extra`` that installs it."""
        self.extra = extra
        super().__init__(f"{name} needs {package}, not installed here: pip install 'flmq[{extra}]'")


def check_tracker(name: str, module: str, package: str, extra: str) -> None:
    """Import ``module``, which may take seconds: before a run begins, and not while it does.

    Raises:
        TrackerNotInstalled: it is not there.
    """
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        raise TrackerNotInstalled(name, package, extra) from error
