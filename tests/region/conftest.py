"""A stage for aggregators, on the memory broker and on a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flmq.testing import fast_retries
from tests.end_to_end.fixtures import rig
from tests.region.stage import Stage
from tests.transport.rigs import MemoryRig, Rig

__all__ = ["memory_stage", "rig", "stage"]


@pytest.fixture
def stage(rig: Rig) -> Iterator[Stage]:
    made = Stage(rig)
    yield made
    made.close()


@pytest.fixture
def memory_stage() -> Iterator[Stage]:
    with fast_retries():
        rig = MemoryRig()
        made = Stage(rig)
        yield made
        made.close()
        rig.close()
