"""A job that was begun differently: the refusal names what differs, and nothing else."""

from __future__ import annotations

from flmq.server.runfolder import JobChanged


def test_of_many_options_those_that_differ_are_named() -> None:
    then = "fraction_evaluate=1.0, fraction_fit=1.0, inplace=True"
    now = "fraction_evaluate=0.0, fraction_fit=1.0, inplace=True"
    error = JobChanged("job", {"options of the strategy": (then, now), "seed": ("1", "2")})
    assert (
        "(options of the strategy: was fraction_evaluate=1.0, is fraction_evaluate=0.0; "
        "seed: was 1, is 2)"
    ) in str(error)


def test_an_option_that_came_anew_is_named() -> None:
    error = JobChanged("job", {"options of the strategy": ("a=1", "a=1, momentum=0.9")})
    assert "was a=1, is momentum=0.9" in str(error)
