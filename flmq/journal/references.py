"""How a record stores a blob's reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

from flmq.wire import BlobRef

__all__ = ["ref_in", "ref_out"]


def ref_out(ref: BlobRef) -> Mapping[str, Any]:
    """Return ``ref`` in its stored form."""
    fields = astuple(ref)
    # Without names, as an earlier flmq stores and reads it.
    return {"ref": fields if ref.names else fields[:-1]}


def ref_in(stored: Mapping[str, Any]) -> BlobRef:
    """Return the reference that `ref_out` stored."""
    return BlobRef(*stored["ref"])
