"""Exit statuses of commands; `docs/exit-codes.md` has a section for each."""

from __future__ import annotations

from enum import IntEnum

from flmq.common.errors import (
    BrokerError,
    FlmqError,
    PeerError,
    RunError,
    StoredDataError,
    UsageError,
)

__all__ = ["ExitCode", "ModelUnchanged", "Terminated", "exit_code_of"]


class ExitCode(IntEnum):
    """Exit statuses of ``flmq``."""

    OK = 0
    """Done."""
    INTERNAL = 1
    """An error that flmq did not foresee, or one of your own strategy or client code."""
    USAGE = 2
    """The command line, the environment or your program asks for something impossible."""
    BROKER = 3
    """The broker cannot be found or reached, or refuses."""
    RUN = 4
    """The federated run could not go on, or failed."""
    STORED_DATA = 5
    """A file of an earlier run is damaged, or of a newer flmq."""
    CHECK_FAILED = 6
    """``flmq doctor``, ``flmq broker status`` or ``flmq site check`` found a problem."""
    UNCHANGED = 7
    """All rounds are over, and none changed the model."""
    INTERRUPTED = 130
    """Ctrl-C."""
    TERMINATED = 143
    """SIGTERM."""


class ModelUnchanged(FlmqError):
    """All rounds are over, and none changed the model."""

    def __init__(self, job: str, rounds: int, why: str) -> None:
        """Say ``why``, as of the last round."""
        super().__init__(
            f"job {job}: {rounds} rounds are over, and none changed the model; the last: {why}. "
            f"`flmq runs show {job}` tells what became of every task"
        )


class Terminated(KeyboardInterrupt):
    """SIGTERM was received: end gracefully, as on Ctrl-C."""


_BY_ERROR: tuple[tuple[type[FlmqError], ExitCode], ...] = (
    (UsageError, ExitCode.USAGE),
    (BrokerError, ExitCode.BROKER),
    (RunError, ExitCode.RUN),
    (PeerError, ExitCode.RUN),
    (StoredDataError, ExitCode.STORED_DATA),
    (ModelUnchanged, ExitCode.UNCHANGED),
)


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit status of a command that ends with ``error``."""
    if isinstance(error, Terminated):
        return ExitCode.TERMINATED
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return ExitCode.INTERNAL
