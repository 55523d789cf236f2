"""Two servers of one run: the one that took charge last writes, the other changes nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flmq.common.errors import RunError
from flmq.journal import Fenced, Journal, KeepPolicy, LateEntry, list_runs
from flmq.round import Outcome
from tests.journal.runs import (
    IDENTITY,
    answer,
    begun,
    closing,
    end_round,
    fit,
    model,
    names,
    plan,
    told,
    upload,
)

WRITES: dict[str, Callable[[Journal], object]] = {
    "open_phase": lambda j: j.phases.open(fit(2), plan(["a"], 2)),
    "tick": lambda j: j.phases.tick(fit(1), 99.0),
    "contribute": lambda j: j.phases.contribute(fit(1), answer("b")),
    "contribute_many": lambda j: j.phases.contribute_many([(fit(1), answer("b"))]),
    "take_in": lambda j: j.phases.take_in((), [LateEntry(fit(1), "a", Outcome.DUPLICATE, 0.0)]),
    "close_phase": lambda j: j.phases.close(fit(1), closing("a")),
    "checkpoint": lambda j: end_round(j, 1),
    "keep": lambda j: j.keep(KeepPolicy(every=1)),
    "finish": lambda j: j.finish({}),
    "adopt_reply": lambda j: j.adopt_reply("b-1", *upload(j, model(3))),
}


@pytest.fixture
def old(tmp_path: Path) -> Journal:
    """A server in the middle of round 1."""
    journal = begun(tmp_path / "job")
    end_round(journal, 0)
    journal.phases.open(fit(1), plan(["a", "b"]))
    journal.phases.contribute(fit(1), answer("a"))
    return journal


@pytest.mark.parametrize("write", WRITES)
def test_whoever_lost_charge_changes_nothing(old: Journal, write: str) -> None:
    new = Journal.open(old.folder)
    WRITES["tick"](old)  # a standby that only looks does not fence
    epoch = new.take_charge()
    before = told(new), names(old.folder / "replies")
    with pytest.raises(
        Fenced, match=r"another server took charge of job digits .* stops, having"
    ) as at:
        WRITES[write](old)
    assert isinstance(at.value, RunError)
    assert (at.value.job, at.value.theirs) == (IDENTITY.name, epoch)
    assert at.value.ours < epoch
    old.close()
    assert (told(new), names(old.folder / "replies")) == before
    new.phases.contribute(fit(1), answer("b"))


def test_files_of_who_lost_charge_go_in_the_end(old: Journal) -> None:
    new = Journal.open(old.folder)
    new.take_charge()
    with pytest.raises(Fenced):
        end_round(old, 1)
    end_round(new, 1)
    assert len(names(old.folder / "blobs")) == 3


def test_the_epoch_grows_whatever_the_clock_does(tmp_path: Path) -> None:
    times = iter(
        [5_000_000_000_000, 7_000_000_000_000, 3_600_000_000_000, 0, 8_000_000_000_999_999]
    )
    now = [0]
    journal = Journal.open(tmp_path / "job", clock=lambda: now[0])
    journal.begin(IDENTITY, {}, {})
    epochs = []
    for time in times:
        now[0] = time
        journal = Journal.open(tmp_path / "job", clock=lambda: now[0])
        epochs.append(journal.take_charge())
        journal.phases.open(fit(len(epochs)), plan(["a"]))
    assert epochs == [5_000_000, 7_000_000, 7_000_001, 7_000_002, 8_000_000_000]


def test_replies_that_were_on_their_way_to_who_lost_charge_go(old: Journal) -> None:
    """They come again, to whoever is in charge."""
    arriving = old.spool_folder / "of-the-old-one"
    arriving.mkdir()
    (arriving / "b-1").write_bytes(b"half of it")
    new = Journal.open(old.folder)
    assert arriving.exists()
    new.take_charge()
    assert list(new.spool_folder.iterdir()) == []


def test_charge_can_be_taken_back(old: Journal) -> None:
    new = Journal.open(old.folder)
    new.take_charge()
    old.take_charge()
    old.phases.contribute(fit(1), answer("b"))
    with pytest.raises(Fenced):
        new.phases.tick(fit(1), 1.0)


def test_another_process_is_fenced(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.journal.writer", str(folder), "--steps"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None

        def step() -> str:
            assert other.stdin is not None
            assert other.stdout is not None
            other.stdin.write("\n")
            other.stdin.flush()
            return other.stdout.readline()

        assert other.stdout.readline() == "ready\n"
        journal = Journal.open(folder)
        assert step() == "reply client-0\n"
        assert [run.state.value for run in list_runs(tmp_path)] == ["running"]
        journal.take_charge()
        before = told(journal)
        assert step().startswith("fenced another server took charge of job digits")
        assert told(journal) == before
        journal.phases.contribute(fit(1), answer("client-5"))
        record = journal.phases.find(fit(1))
        assert record is not None
        assert [c.client_id for c in record.contributions] == ["client-0", "client-5"]
        other.stdin.close()
        assert other.wait() == 0
