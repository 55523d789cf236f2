"""Errors of an aggregator, besides the general ones of `flmq.common`."""

from __future__ import annotations

from pathlib import Path

from flmq.common.errors import RunError, StoredDataError, UsageError

__all__ = ["AggregatorInUse", "LedgerDamaged", "LedgerInUse", "LedgerNotWritable"]


class AggregatorInUse(UsageError):
    """Another live aggregator serves the site."""

    def __init__(self, site: str, instance: str = "") -> None:
        """Name the site, and the other process where it is known."""
        self.site = site
        self.instance = instance
        named = f", {instance}" if instance else ""
        super().__init__(
            f"the clients of site {site!r} have another live aggregator{named}: stop that one, or "
            "give --standby to take its place when it ends"
        )


class LedgerInUse(UsageError):
    """Another live aggregator uses the folder."""

    def __init__(self, folder: Path) -> None:
        """Name the folder."""
        self.folder = folder
        super().__init__(
            f"another live aggregator uses {folder}: stop that one, or give another --state-dir"
        )


class LedgerDamaged(StoredDataError):
    """The aggregator's folder does not hold what was written to it."""

    def __init__(self, folder: Path, why: str) -> None:
        """Name the folder and the cause."""
        self.folder = folder
        super().__init__(
            f"{why.partition('. Nothing was changed')[0]}. Move {folder} away and start again: no "
            "reply is lost, the server asks for what it has not got"
        )


class LedgerNotWritable(RunError):
    """The aggregator's folder cannot be written."""

    def __init__(self, folder: Path, why: str) -> None:
        """Name the folder and the cause."""
        self.folder = folder
        super().__init__(
            f"{why.partition('. What was recorded')[0]}. No reply is lost: see to space and "
            f"permissions of {folder}, and start the aggregator again to go on"
        )
