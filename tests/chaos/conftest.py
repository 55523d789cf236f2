"""One broker, behind a proxy, for all disturbed runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flmq.common.errors import BrokerError
from tests.chaos.stage import Stage


@pytest.fixture(scope="package")
def stage() -> Iterator[Stage]:
    """A stage that is set anew for each run."""
    made = Stage()
    try:
        made.__enter__()
    except BrokerError as error:
        pytest.fail(str(error), pytrace=False)
    yield made
    made.__exit__(None, None, None)
