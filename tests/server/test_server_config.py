"""The server's configuration: Flower's fields first, flmq's after, ranges checked."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from flmq.server.server_config import ServerConfig


def test_fields_come_in_flowers_order_with_flowers_defaults() -> None:
    fields = [(field.name, field.default) for field in dataclasses.fields(ServerConfig)]
    assert fields[:2] == [("num_rounds", 1), ("round_timeout", None)]
    assert all(default is None for _, default in fields[2:])


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (ServerConfig(), "num_rounds=1, no round_timeout"),
        (ServerConfig(3, 2.5), "num_rounds=3, round_timeout=2.5s"),
        (
            ServerConfig(3, min_results=2, target_results=8),
            "num_rounds=3, no round_timeout, min_results=2, target_results=8",
        ),
        (ServerConfig(3, lambda server_round: 60.0), "num_rounds=3, round_timeout by round"),
    ],
)
def test_it_shows_itself_as_flowers_does(config: ServerConfig, text: str) -> None:
    assert repr(config) == text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_rounds": -1}, "num_rounds is -1: give a whole number, 0 or more"),
        ({"num_rounds": 2.0}, "num_rounds is 2.0"),
        ({"num_rounds": True}, "num_rounds is True"),
        ({"round_timeout": 0}, "round_timeout is 0: give seconds above 0, or None"),
        ({"round_timeout": -3.0}, "round_timeout is -3.0"),
        ({"round_timeout": math.nan}, "round_timeout is nan"),
        ({"round_timeout": math.inf}, "round_timeout is inf"),
        ({"round_timeout": "60"}, "round_timeout is '60': give seconds"),
        ({"early_stopping": 3}, "early_stopping is 3: give an EarlyStopping(patience=...)"),
        ({"early_stopping": dict}, "early_stopping is the class dict: give"),
        ({"min_results": 0}, "min_results is 0: give a whole number, 1 or more"),
        ({"target_results": 0}, "target_results is 0"),
        ({"min_results": 5, "target_results": 4}, "min_results is 5 and target_results 4"),
    ],
)
def test_what_is_out_of_range_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"give|lower") as error:
        ServerConfig(**fields)
    assert message in str(error.value)


def test_the_edges_of_the_ranges_are_accepted() -> None:
    assert ServerConfig(0, 0.001, 3, 3) == ServerConfig(
        num_rounds=0, round_timeout=0.001, min_results=3, target_results=3
    )
