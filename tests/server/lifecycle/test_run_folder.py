"""A job that was begun differently: the refusal names what differs, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from flmq.common.errors import JobInUse
from flmq.server.lifecycle.run_folder import JobChanged, set_aside
from tests.journal.runs import begun


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


def test_a_folder_that_a_live_server_is_in_charge_of_is_not_moved_aside(tmp_path: Path) -> None:
    journal = begun(tmp_path / "job")
    with pytest.raises(JobInUse, match="is run by another live server"):
        set_aside(tmp_path / "job")
    journal.close()
    aside = set_aside(tmp_path / "job")
    assert aside is not None
    assert (aside / "journal.db").exists()
    assert not (tmp_path / "job").exists()
