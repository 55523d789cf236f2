"""Stop commands gracefully: with the signal's exit status, and a line on how to resume."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType

from flmq.cli.draining import SAME, Drain
from flmq.cli.exit_codes import Terminated, exit_code_of
from flmq.cli.saying import say
from flmq.common.errors import FlmqError

__all__ = ["PART_OF_DEMO", "TYPED_BROKER", "in_order", "typed_again"]

PART_OF_DEMO = "FLMQ_PART_OF_DEMO"
"""Set for the processes of a command that itself says how to resume, such as a demo."""
TYPED_BROKER = "FLMQ_TYPED_BROKER"
"""The broker's URL given with ``--broker``, without its password (the real one is hidden)."""


@contextmanager
def in_order(goes_on: Callable[[], str], drain: Drain | None = None) -> Iterator[None]:
    """Let SIGTERM end the command gracefully, as Ctrl-C does; the last line is ``goes_on()``.

    While ``drain`` serves, SIGTERM drains it first. The command exits with the signal's status. A
    second SIGTERM that comes at once is the first one: it must not break off what ends in order.
    """
    heard: float | None = None

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if drain is not None and drain.hear():
            return
        before, now = heard, time.monotonic()
        if before is None or now - before >= SAME:
            heard = now
            raise Terminated

    signal.signal(signal.SIGTERM, interrupt)
    if PART_OF_DEMO in os.environ:
        # A shell that starts a command in the background has it ignore Ctrl-C, and so its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt as error:
        if PART_OF_DEMO not in os.environ:
            say(f"stopped: {_said(goes_on)}")
        raise SystemExit(exit_code_of(error)) from None


def _said(goes_on: Callable[[], str]) -> str:
    try:
        return goes_on()
    except FlmqError as error:  # for example, an unreadable folder
        return str(error)


def typed_again(*add: str, without: Collection[str] = ()) -> str:
    """Return the command line as typed, adding options ``add`` if missing, quoted for a shell."""
    typed = [argument for argument in sys.argv[1:] if argument not in without]
    if TYPED_BROKER in os.environ:
        typed.append(f"--broker={os.environ[TYPED_BROKER]}")
    for argument in add:
        option = argument.partition("=")[0]
        if not any(each == option or each.startswith(f"{option}=") for each in typed):
            typed.append(argument)
    return shlex.join(["flmq", *typed])
