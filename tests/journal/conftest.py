"""A journal to begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from flmq.journal import Journal
from tests.journal.runs import begun


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """One that has begun and that we are in charge of."""
    return begun(tmp_path / "runs" / "job")
