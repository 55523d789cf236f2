"""Which server of a job a client takes for the one in charge."""

from __future__ import annotations

from flmq.client.serving.epochs import Epochs

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


def test_runs_of_one_job_are_not_compared() -> None:
    epochs = Epochs(lambda: _NOW)
    assert epochs.hear("job", _at(_NOW), "first")
    assert epochs.hear("job", _at(_NOW - 3600), "second")
    assert not epochs.hear("job", _at(_NOW) - 1, "first")
    assert epochs.hear("job", _at(_NOW - 3600) + 1, "second")


def test_a_run_takes_over_once() -> None:
    epochs = Epochs(lambda: _NOW)
    epochs.hear("job", 2, "first")
    assert not epochs.takes_over("job", "first")
    epochs.hear("job", 1, "second")
    assert epochs.takes_over("job", "second")
    assert not epochs.takes_over("job", "second")
    assert not epochs.takes_over("another", "first")
    epochs.hear("spooled", 2, "first")
    assert epochs.takes_over("spooled", "second"), "whose tasks lay in a spool"


def test_a_run_that_an_earlier_server_did_not_say_may_be_the_same() -> None:
    epochs = Epochs(lambda: _NOW)
    epochs.hear("spooled", 2)
    epochs.hear("spooled", 3, "first")
    assert not epochs.takes_over("spooled", "first")
    assert not epochs.takes_over("spooled", ""), "the earlier version was started again"
    assert not epochs.takes_over("spooled", "first")
    assert epochs.end("spooled", 3, "first") == {"", "first"}


def test_the_end_of_a_run_ends_the_job_if_it_is_in_charge() -> None:
    epochs = Epochs(lambda: _NOW)
    for run in ("first", "second"):
        epochs.hear("job", 1, run)
        epochs.takes_over("job", run)
    assert epochs.end("job", 1, "unknown") == frozenset()
    assert epochs.end("job", 1, "first") == {"first"}
    assert epochs.knows("job")
    epochs.hear("job", 1, "first")
    assert epochs.end("job", 1, "second") == {"first", "second"}
    assert not epochs.knows("job")
    assert not epochs.takes_over("job", "third"), "nothing is left of what ended"


def test_invented_runs_take_no_memory() -> None:
    epochs = Epochs(lambda: _NOW)
    for number in range(1000):
        epochs.hear("job", 1, f"run-{number}")
    assert len(epochs.end("job", 1, "run-999")) == 16


def test_of_invented_jobs_the_last_are_known() -> None:
    """A flood of roll calls takes bounded memory, and no job's place that is heard meanwhile."""
    forgotten: list[str] = []
    epochs = Epochs(lambda: 2e9, forgotten.append)
    for number in range(30_000):
        assert epochs.hear(f"invented-{number}", 1)
        if number % 1000 == 0:
            assert epochs.hear("real", 7)
    assert epochs.knows("real")
    assert not epochs.hear("real", 6)
    assert len(forgotten) == 30_001 - 10_000
    assert "real" not in forgotten
