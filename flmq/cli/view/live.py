"""The live view of a run in a terminal: rounds as they close, clients as they answer, remarks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, RenderableType
from rich.live import Live

from flmq.cli.verbosity import Verbosity, verbosity
from flmq.cli.view.drawing import draw_board, draw_summary
from flmq.cli.view.text import TextView
from flmq.observe.events import RunEnded, RunEvent, RunStarted
from flmq.observe.run_state import Board

__all__ = ["LiveView", "NoView", "View", "choose_view"]

_REDRAWS = 8
"""Redraws per second: smooth, and little work for the terminal."""


class View(Protocol):
    """An observer that shows a run to a person, and restores the terminal on exit."""

    def __call__(self, event: RunEvent) -> None:
        """Show what ``event`` changes."""

    def close(self) -> None:
        """Restore the terminal. Idempotent."""

    def __enter__(self) -> Self:
        """Return the view itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the view."""


class LiveView:
    """Redraw the lower part of a terminal in place during a run, then leave a summary."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        """Draw on ``console``; ``clock`` gives monotonic seconds."""
        self._console = console
        self._clock = clock
        # The server's threads emit events while the redrawing thread reads the board.
        self._lock = threading.Lock()
        self._board = Board()
        self._live: Live | None = None

    def __call__(self, event: RunEvent) -> None:
        """Process ``event``; the next redraw shows it. Blocks for no longer than a redraw."""
        with self._lock:
            self._board.apply(event, self._clock())
        match event:
            case RunStarted():
                self._start()
            case RunEnded():
                self.close()

    def close(self) -> None:
        """Stop redrawing and leave a summary, even of an interrupted run. Idempotent."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()
            self._console.print(draw_summary(self._board, self._console.options))

    def __enter__(self) -> Self:
        """Return the view itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Call ``close``."""
        self.close()

    def render(self) -> RenderableType:
        """Return what to draw now."""
        with self._lock:
            return draw_board(self._board, self._clock(), self._console.options)

    def _start(self) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console,
                get_renderable=self.render,
                refresh_per_second=_REDRAWS,
                transient=True,
                vertical_overflow="crop",
            )
            self._live.start()


class NoView:
    """A view where nobody looks: the log says it all."""

    def __call__(self, event: RunEvent) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        """Return the view itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing."""


def choose_view(console: Console) -> View:
    """Return the live view if ``console`` can redraw and show Unicode, else plain lines.

    Nothing is shown where the command is quiet, or where it writes all of its log.
    """
    if verbosity() is not Verbosity.NORMAL:
        return NoView()
    can_redraw = console.is_terminal and not console.is_dumb_terminal
    if can_redraw and console.encoding.lower().startswith("utf"):
        return LiveView(console)
    return TextView(console.file)
