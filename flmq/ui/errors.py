"""What can keep the page from being shown, and what to do about it."""

from __future__ import annotations

from flmq.common.errors import UsageError

__all__ = ["AddressTaken", "InvalidPageOptions", "NotInstalled"]


class NotInstalled(UsageError):
    """The packages of the page's server are missing."""

    def __init__(self) -> None:
        """Name the extra."""
        super().__init__("the page needs packages that are not here: pip install 'flmq[ui]'")


class AddressTaken(UsageError):
    """The page cannot be served at this address."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        """Name the address and the reason."""
        super().__init__(
            f"the page cannot be served at {host}:{port} ({error.strerror}): give another --port, "
            "or 0 for any that is free"
        )


class InvalidPageOptions(UsageError):
    """Options of the page that do not go together."""
