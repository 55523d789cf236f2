"""Three sites for all runs of the package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flmq.common.errors import BrokerError
from tests.sites.stage import Sites


@pytest.fixture(scope="package")
def sites() -> Iterator[Sites]:
    """A hub and two sites below it, which are set anew for each run."""
    made = Sites()
    try:
        made.__enter__()
    except BrokerError as error:
        pytest.fail(str(error), pytrace=False)
    yield made
    made.__exit__(None, None, None)
