"""A real broker to provision, and files that say how."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SessionBroker
from tests.provision.stage import Stage


@pytest.fixture
def stage(broker_node: SessionBroker, tmp_path: Path) -> Iterator[Stage]:
    """A virtual host on the session's broker, and users whose names nobody else has."""
    stage = Stage(broker_node, tmp_path, f"p{secrets.token_hex(4)}")
    yield stage
    stage.clear()
