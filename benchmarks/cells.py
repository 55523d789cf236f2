"""What is measured: so many clients with a model of such a size."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

__all__ = ["CELLS", "LARGE", "MEMORY", "Cell", "model_bytes", "parse_cell", "size_name"]

_UNITS = {"KB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the tables."""

    clients: int
    model_bytes: int

    def __str__(self) -> str:
        """As people write it: "10 x 50 MB"."""
        return f"{self.clients} x {size_name(self.model_bytes)}"

    @property
    def together(self) -> bool:
        """Whether contestants may all be up at once: not with models that fill the memory."""
        return self.clients * self.model_bytes < 1_000_000_000


def size_name(num_bytes: int) -> str:
    """Return "50 MB" for 50,000,000."""
    for unit, scale in reversed(_UNITS.items()):
        if num_bytes >= scale:
            return f"{num_bytes / scale:g} {unit}"
    return f"{num_bytes} B"


def model_bytes(text: str) -> int:
    """Read "10KB". For argparse: `argparse.ArgumentTypeError` says what is wrong."""
    match = re.fullmatch(r"(\d+)(KB|MB|GB)", text.replace(" ", ""))
    if match is None or int(match[1]) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a size in KB, MB or GB, as 10KB")
    return int(match[1]) * _UNITS[match[2]]


def parse_cell(text: str) -> Cell:
    """Read "10x50MB". For argparse: `argparse.ArgumentTypeError` says what is wrong."""
    match = re.fullmatch(r"(\d+)x(\d+)(KB|MB|GB)", text.replace(" ", ""))
    if match is None or int(match[1]) < 1 or int(match[2]) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give clients x model in KB, MB or GB, as 10x50MB"
        )
    return Cell(int(match[1]), int(match[2]) * _UNITS[match[3]])


CELLS = (Cell(10, 50_000_000), Cell(50, 5_000_000), Cell(20, 10_000))
LARGE = Cell(4, 1_000_000_000)
MEMORY = tuple(Cell(clients, 50_000_000) for clients in (5, 10, 40))
"""Where the server's memory is what is looked at."""
