"""A blob's reference as a record holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

from flmq.wire import BlobRef

__all__ = ["ref_in", "ref_out"]


def ref_out(ref: BlobRef) -> Mapping[str, Any]:
    """What is stored for ``ref``."""
    return {"ref": astuple(ref)}


def ref_in(stored: Mapping[str, Any]) -> BlobRef:
    """The reference that `ref_out` stored."""
    return BlobRef(*stored["ref"])
