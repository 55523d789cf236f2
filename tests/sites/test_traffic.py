"""What a link carries, counted at its interface."""

from __future__ import annotations

import pytest

from benchmarks.links import model_down
from tests.sites.stage import Sites

_HEADERS = 1514 / 1448
"""Bytes on an Ethernet for each of the data in full packets of TCP."""


@pytest.mark.slow
def test_a_model_crosses_a_link_once_for_twenty_clients(sites: Sites) -> None:
    """With the tasks of all clients and every sign of life, besides the headers of its packets.

    The benchmark has 1.05 with those headers; a busy machine sends some packets half full.
    """
    model_bytes = 10_000_000
    down = model_down(sites, clients=20, model_bytes=model_bytes)
    assert model_bytes < down <= 1.05 * model_bytes * _HEADERS
