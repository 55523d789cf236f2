"""What is fuzzed: everything that reads bytes of a peer, of a broker, or of a file."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.files import file_targets
from tests.fuzz.harness import Target
from tests.fuzz.messages import message_targets
from tests.fuzz.tensors import tensor_targets

__all__ = ["all_targets"]


def all_targets(folder: Path) -> list[Target]:
    """Return every target; ``folder`` is for the files that they read."""
    return [*message_targets(), *tensor_targets(folder), *file_targets(folder)]
