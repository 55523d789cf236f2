"""A run's folder that goes under its server is named so, and no run begins anew in silence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flmq.common import NDArrays
from flmq.journal import JournalGone
from flmq.observe.events import Note, RunEnded
from flmq.server.options import ResumePolicy
from tests.end_to_end.federation import JOB, Federation, Nudge, fed_avg, initial

LARGE = 200_000
"""Parameters of a reply that goes through the spool."""


def delete(folder: Path) -> None:
    shutil.rmtree(folder)


def move(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def put_back_from_a_copy(folder: Path) -> None:
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    shutil.rmtree(folder)
    copy.rename(folder)


class Taking(Nudge):
    """Takes the server's folder away in its second round."""

    take: Callable[[], None]
    rounds = 0

    def fit(self, parameters: NDArrays, config: object) -> tuple[NDArrays, int, dict[str, float]]:  # type: ignore[override]
        type(self).rounds += 1
        if self.rounds == 2:
            type(self).take()
        return super().fit(parameters, {})  # type: ignore[return-value]


@pytest.mark.parametrize("size", [5, LARGE])
@pytest.mark.parametrize("change", [delete, move, put_back_from_a_copy])
def test_a_folder_that_goes_under_its_server_is_named_and_nothing_is_promised(
    memory_federation: Federation,
    tmp_path: Path,
    change: Callable[[Path], None],
    size: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Here(Taking):
        take = staticmethod(lambda: change(tmp_path / JOB))

    memory_federation.serve("a", source=lambda context: Here(context.client_id))
    running = memory_federation.run(
        fed_avg(1, initial_parameters=initial(size)), 3, runs_dir=tmp_path
    )
    with pytest.raises(JournalGone) as info:
        running.history()
    said = str(info.value)
    assert said.startswith(f"{tmp_path / JOB}: was deleted, moved or replaced while its server ran")
    assert "without it the job begins anew from round 1" in said
    assert running.watch.wait_for(RunEnded).error == said
    assert "goes on with it" not in caplog.text


def _begin_and_leave(federation: Federation, folder: Path) -> None:
    """Have a job run one round, and its server end in its second by a fault."""

    class Here(Taking):
        take = staticmethod(lambda: delete(folder / JOB))

    federation.serve("a", source=lambda context: Here(context.client_id))
    running = federation.run(fed_avg(1), 3, runs_dir=folder)
    with pytest.raises(JournalGone):
        running.history()


def test_a_server_that_begins_anew_what_others_have_begun_says_so(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _begin_and_leave(federation, tmp_path)
    again = federation.run(fed_avg(1), 3, runs_dir=tmp_path / "other machine")
    again.history()
    said = f"job {JOB} begins anew from round 1: its queues are on the broker"
    assert [note for note in again.watch.of(Note) if note.text.startswith(said)]
    assert [record for record in caplog.records if record.getMessage().startswith(said)]
    caplog.clear()
    # The job came to its end: another run of it is nothing to be surprised at.
    federation.run(fed_avg(1), 3, runs_dir=tmp_path / "third").history()
    assert said not in caplog.text


def test_who_asks_for_a_fresh_run_and_who_resumes_is_told_nothing(
    memory_federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _begin_and_leave(memory_federation, tmp_path / "first")
    (tmp_path / "second" / JOB).mkdir(parents=True)
    fresh = memory_federation.run(
        fed_avg(1), 3, runs_dir=tmp_path / "second", resume=ResumePolicy.FRESH
    )
    fresh.history()
    assert "begins anew from round 1" not in caplog.text
