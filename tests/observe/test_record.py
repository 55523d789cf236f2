"""The run's record: whole after every round, read back as written, refused when damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.common.errors import StoredDataError
from flmq.common.times import TaskTimes, WorkerTimes
from flmq.common.typing import Scalar
from flmq.observe.events import (
    ClientOutcome,
    Outcome,
    Phase,
    RoundClosed,
    RoundCounts,
    RunEnded,
    RunStarted,
)
from flmq.observe.record import (
    OutcomeRecord,
    RoundRecord,
    RunRecord,
    killed_rounds,
    load_record,
    save_record,
)
from flmq.observe.recorder import RunRecorder
from tests.observe.synthetic import FAILED_IN, JOB, KILLED_IN, ROUNDS, whole_run

NOON = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)


def recorded(folder: Path, about: dict[str, Any] | None = None) -> RunRecord:
    recorder = RunRecorder(folder, about, clock=lambda: NOON)
    for event in whole_run():
        recorder(event)
    assert recorder.path == folder / JOB / "history.json"
    return load_record(recorder.path)


def test_a_run_is_read_back_with_all_that_matters(tmp_path: Path) -> None:
    record = recorded(tmp_path, {"partition": "dirichlet", "alpha": 0.5})
    assert (record.job, record.strategy, record.num_rounds) == (JOB, "FedAvg", ROUNDS)
    assert record.about == {"partition": "dirichlet", "alpha": 0.5}
    assert record.started == record.ended == "2026-05-04T12:00:00+00:00"
    assert (record.final_loss, record.final_metrics) == (0.307, {"accuracy": 0.942})
    assert [each.server_round for each in record.rounds] == list(range(1, ROUNDS + 1))
    seventh = record.rounds[FAILED_IN - 1]
    assert seventh.fit == RoundCounts(asked=10, accepted=7, failed=1, silent=2, late=1)
    assert record.rounds[FAILED_IN].fit.late == 0
    assert seventh.closed == {"fit": "deadline"}
    assert (seventh.bytes_down, seventh.bytes_up, seventh.seconds) == (27_000, 26_000, 0.9)
    words = [(each.client_id, each.word) for each in seventh.outcomes if each.word != "accepted"]
    # The late reply came while the eighth round was open, and belongs to the seventh.
    assert words == [
        ("client-01", "failed"),
        ("client-02", "silent"),
        ("client-03", "silent"),
        ("client-00", "late"),
    ]
    (failed,) = (each for each in seventh.outcomes if each.word == "failed")
    assert failed.detail == "Traceback\nValueError: batch of 0 images"
    assert (KILLED_IN, "connection replies lost: connection reset by peer") in record.notes
    assert not any("online: hello" in text for _, text in record.notes)


def test_an_accepted_reply_has_an_entry_with_all_that_it_said(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, rest=0.0)
    recorder(RunStarted("j", 1, "FedAvg", "in memory"))
    said: dict[str, Scalar] = {"loss": 0.5, "ok": True, "\udcff": "\udcff"}
    recorder(ClientOutcome(1, Phase.FIT, "a", Outcome.ACCEPTED, "", 0.2, 143, 2700, metrics=said))
    recorder(
        RoundClosed(
            1,
            1,
            RoundCounts(1, 1),
            RoundCounts(),
            0.5,
            {},
            1.0,
            0,
            0,
            fit_metrics={"loss": 0.5},
            evaluate_loss=0.75,
            evaluate_metrics={"f1": 0.25},
            changed=False,
        )
    )
    (closed,) = load_record(tmp_path / "j").rounds
    assert closed.outcomes == (OutcomeRecord("fit", "a", "accepted", "", 0.2, "", 143, 2700, said),)
    assert (closed.fit_metrics, closed.evaluate_loss) == ({"loss": 0.5}, 0.75)
    assert (closed.evaluate_metrics, closed.changed) == ({"f1": 0.25}, False)


def test_a_clients_words_and_metrics_are_bounded(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, rest=0.0)
    recorder(RunStarted("j", 1, "FedAvg", "in memory"))
    many: dict[str, Scalar] = {f"{at}": "x" * 10**5 for at in range(1000)}
    long = "y" * 10**6
    recorder(ClientOutcome(1, Phase.FIT, "a", Outcome.ACCEPTED, metrics=many))
    recorder(ClientOutcome(1, Phase.FIT, "b", Outcome.FAILED, long, detail=long))
    recorder(RoundClosed(1, 1, RoundCounts(2, 1, 1), RoundCounts(), None, {}, 1.0, 0, 0))
    assert (tmp_path / "j" / "history.json").stat().st_size < 300_000


def test_a_long_runs_oldest_rounds_keep_their_counts_and_say_what_is_left_out(
    tmp_path: Path,
) -> None:
    recorder = RunRecorder(tmp_path, rest=0.0, most=45_000)
    recorder(RunStarted("j", 50, "FedAvg", "in memory"))
    for at in range(1, 51):
        for client in "abcdefgh":
            recorder(ClientOutcome(at, Phase.FIT, client, Outcome.ACCEPTED, "", 0.2, 143, 2700))
        recorder(RoundClosed(at, 50, RoundCounts(8, 8), RoundCounts(), None, {}, 1.0, 0, 0))
    recorder(ClientOutcome(1, Phase.FIT, "a", Outcome.DUPLICATE))
    recorder(RunEnded("j", 50, 1.0))
    record = load_record(tmp_path / "j")
    assert len(record.rounds) == 50
    kept = [len(each.outcomes) for each in record.rounds]
    assert kept == sorted(kept)
    assert (kept[0], kept[-1]) == (0, 8)
    assert record.rounds[0].outcomes_left_out == 9
    assert record.rounds[0].fit.duplicate == 1
    for each in record.rounds[1:]:
        assert len(each.outcomes) + each.outcomes_left_out == 8
    assert (tmp_path / "j" / "history.json").stat().st_size < 60_000


def test_kills_on_purpose_are_found_by_round(tmp_path: Path) -> None:
    assert killed_rounds(recorded(tmp_path)) == {KILLED_IN: ("client-02", "client-03")}


def test_the_file_is_whole_after_every_round_and_no_temporary_stays(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, rest=0.0)
    rounds = 0
    for event in whole_run():
        recorder(event)
        rounds += isinstance(event, RoundClosed)
        assert recorder.path is not None
        assert len(load_record(recorder.path.parent).rounds) == rounds
        assert [path.name for path in recorder.path.parent.iterdir()] == ["history.json"]
    assert rounds == ROUNDS


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = recorded(tmp_path)
    path = tmp_path / JOB / "history.json"

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_record(RunRecord("other", "", "", 1, ""), path)
    assert load_record(path) == record
    assert [each.name for each in path.parent.iterdir()] == ["history.json"]


def test_figures_that_json_lacks_survive(tmp_path: Path) -> None:
    plain: dict[str, Scalar] = {"inf": -math.inf, "raw": b"\x00\xff", "flag": True, "n": 3}
    odd: dict[str, Any] = {**plain, "nan": math.nan, "numpy": np.float32(0.5)}
    recorder = RunRecorder(tmp_path, rest=0.0)
    recorder(RunStarted("j", 1, "FedAvg", "in memory"))
    recorder(RoundClosed(1, 1, RoundCounts(), RoundCounts(), math.inf, odd, 1.0, 0, 0))
    text = (tmp_path / "j" / "history.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (closed,) = load_record(tmp_path / "j").rounds
    assert closed.loss == math.inf
    read: dict[str, Any] = dict(closed.metrics)
    assert math.isnan(read.pop("nan"))
    assert read == {**plain, "numpy": 0.5}


def test_what_was_lost_on_the_way_is_kept_and_older_records_say_nothing_of_it(
    tmp_path: Path,
) -> None:
    recorder = RunRecorder(tmp_path, rest=0.0)
    recorder(RunStarted("j", 1, "FedAvg", "in memory"))
    fit = RoundCounts(asked=1, accepted=1, carried=1)
    recorder(RoundClosed(1, 1, fit, RoundCounts(), 1.0, {}, 1.0, 0, 0, "", 2, 7))
    recorder(RunEnded("j", 1, 1.0, incomplete_uploads=3, stray_chunks=8))
    path = tmp_path / "j" / "history.json"
    record = load_record(path)
    (closed,) = record.rounds
    assert closed.fit == fit
    assert (closed.incomplete_uploads, closed.stray_chunks) == (2, 7)
    assert (record.incomplete_uploads, record.stray_chunks) == (3, 8)

    document = json.loads(path.read_text())
    for each in (document, document["rounds"][0]):
        del each["incomplete_uploads"], each["stray_chunks"]
    del document["rounds"][0]["fit"]["carried"]
    path.write_text(json.dumps(document))
    (closed,) = load_record(path).rounds
    assert (closed.incomplete_uploads, closed.fit.carried) == (0, 0)


def test_a_missing_record_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(StoredDataError, match="no run's record can be read at"):
        load_record(tmp_path)


def test_a_record_of_a_newer_flmq_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    path.write_text('{"format": 2}')
    with pytest.raises(StoredDataError, match="has format 2, this flmq reads up to 1"):
        load_record(path)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    recorded(tmp_path)
    path = tmp_path / JOB / "history.json"
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(StoredDataError, match="damaged"):
            load_record(path)


def without_a_round(document: dict[str, Any]) -> None:
    del document["rounds"]


def with_text_for_a_number(document: dict[str, Any]) -> None:
    document["rounds"][0]["fit"]["asked"] = "ten"


def with_null_for_text(document: dict[str, Any]) -> None:
    document["job"] = None


def without_its_format(document: dict[str, Any]) -> None:
    del document["format"]


def with_a_list_for_a_round(document: dict[str, Any]) -> None:
    document["rounds"][0] = [1]


@pytest.mark.parametrize(
    "damage",
    [
        without_a_round,
        with_text_for_a_number,
        with_null_for_text,
        without_its_format,
        with_a_list_for_a_round,
    ],
)
def test_json_that_is_no_record_is_refused(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    recorded(tmp_path)
    path = tmp_path / JOB / "history.json"
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(StoredDataError, match="damaged"):
        load_record(path)


def test_fields_that_this_version_does_not_know_are_ignored(tmp_path: Path) -> None:
    record = recorded(tmp_path)
    path = tmp_path / JOB / "history.json"
    document = json.loads(path.read_text())
    document["weather"] = document["rounds"][0]["weather"] = "fine"
    path.write_text(json.dumps(document))
    assert load_record(path) == record
    assert isinstance(record.rounds[0], RoundRecord)


def test_the_course_of_a_task_is_kept(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, rest=0.0)
    recorder(RunStarted("j", 1, "FedAvg", "in memory"))
    worker = WorkerTimes(10, 20, 30, 40, 50, 2, 1, "so it is")
    times = TaskTimes(5, 60, 70, worker, 0.5, 0.25)
    recorder(ClientOutcome(1, Phase.FIT, "a", Outcome.ACCEPTED, times=times))
    recorder(ClientOutcome(1, Phase.FIT, "b", Outcome.SILENT, times=TaskTimes(5)))
    recorder(RoundClosed(1, 1, RoundCounts(2, 1), RoundCounts(), None, {}, 1.0, 0, 0))
    (closed,) = load_record(tmp_path / "j").rounds
    assert [each.times for each in closed.outcomes] == [times, TaskTimes(5)]
