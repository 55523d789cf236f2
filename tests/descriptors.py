"""A process that may open no further file, as one that has reached its limit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

__all__ = ["no_more_files"]


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """Have every opening of a file fail with EMFILE meanwhile, in the whole process."""
    resource = pytest.importorskip("resource", reason="limits of POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
