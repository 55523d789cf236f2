"""Which server of a job a client takes for the one in charge."""

from __future__ import annotations

from flmq.client.epochs import Epochs

_DAY = 24 * 3600
_NOW = 1_800_000_000
"""Unix seconds."""


def _at(seconds: float) -> int:
    return round(seconds * 1000)


def test_a_later_server_takes_over_and_an_earlier_one_is_not_heard_any_more() -> None:
    epochs = Epochs(lambda: _NOW)
    assert epochs.hear("job", _at(_NOW))
    assert epochs.hear("job", _at(_NOW) + 1)
    assert not epochs.hear("job", _at(_NOW))
    assert not epochs.end("job", _at(_NOW))
    assert epochs.hear("another", 1)
    assert epochs.end("job", _at(_NOW) + 1)
    assert not epochs.end("job", _at(_NOW) + 1)


def test_an_epoch_of_the_far_future_makes_nobody_deaf() -> None:
    epochs = Epochs(lambda: _NOW)
    assert epochs.hear("job", _at(_NOW + 2 * _DAY))
    assert epochs.hear("job", _at(_NOW)), "the true server, heard after it"
    assert not epochs.hear("job", _at(_NOW + 2 * _DAY)), "and not displaced by it"
    assert epochs.hear("job", _at(_NOW + _DAY / 2)), "clocks differ by hours"


def test_a_client_whose_clock_stands_in_1970_hears_its_servers() -> None:
    epochs = Epochs(lambda: 0.0)
    assert epochs.hear("job", _at(_NOW))
    assert epochs.hear("job", _at(_NOW + 30 * _DAY))
    assert not epochs.hear("job", _at(_NOW))
