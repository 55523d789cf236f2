"""Runs on disk: each round with every client's part, a round at a time, and compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flmq.common.errors import StoredDataError
from flmq.journal import LateEntry, Part
from flmq.journal.opening import DATABASE
from flmq.journal.records import PhaseRow
from flmq.observe.events import ClientOutcome, Phase, RoundClosed, RunEnded, RunStarted
from flmq.observe.past_rounds import past_rounds
from flmq.observe.record import OutcomeRecord, RunRecord, load_record, save_record
from flmq.observe.recorder import RunRecorder
from flmq.observe.runs.comparison import Comparison, compared
from flmq.observe.runs.journalled import journalled_rounds
from flmq.observe.runs.reading import opened_run
from flmq.observe.runs.streamed import stream_record
from flmq.round import Outcome, TaskOutcome
from tests.journal.runs import begun, fit
from tests.journal.test_parts import ODD, part, played
from tests.observe.synthetic import JOB, ROUNDS, whole_run


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    recorder = RunRecorder(tmp_path)
    for event in whole_run():
        recorder(event)
    return load_record(tmp_path / JOB)


def other(record: RunRecord, at: int, digest: str = "", **changes: object) -> RunRecord:
    """The same run, with another round ``at``."""
    rounds = [
        replace(each, **changes, digest=digest) if each.server_round == at else each  # type: ignore[arg-type]
        for each in record.rounds
    ]
    return replace(record, rounds=tuple(rounds))


def side_by_side(*records: RunRecord) -> Comparison:
    names = "abc"
    return compared([(name, each, each.rounds) for name, each in zip(names, records, strict=False)])


def with_digests(record: RunRecord) -> RunRecord:
    rounds = [replace(each, digest=f"model-{each.server_round}") for each in record.rounds]
    return replace(record, rounds=tuple(rounds))


def test_a_run_is_equal_to_itself(record: RunRecord) -> None:
    told = side_by_side(with_digests(record), with_digests(record))
    assert [each.same for each in told.rounds] == [True] * ROUNDS
    assert (told.first_model, told.first_measures, told.first_clients) == (None, None, None)
    assert told.names == ("loss", "accuracy")
    assert told.runs[0].final == {"loss": record.rounds[-1].loss, **record.rounds[-1].metrics}


def test_the_first_difference_of_each_kind_is_found(record: RunRecord) -> None:
    known = with_digests(record)
    left = other(known, 6, "elsewhere")
    left = other(left, 7, "model-7", loss=0.5)
    outcomes = tuple(each for each in known.rounds[8].outcomes if each.client_id != "client-05")
    told = side_by_side(known, other(left, 9, "model-9", outcomes=outcomes))
    assert told.first_model is not None
    assert told.first_clients is not None
    assert (told.first_model.server_round, told.first_measures) == (6, 7)
    assert told.first_model.values == ("model-6", "elsewhere")
    assert (told.first_clients.server_round, told.first_clients.values) == (9, ("client-05", ""))


def test_what_is_not_known_is_not_said_to_be_equal(record: RunRecord) -> None:
    shorter = replace(record, rounds=record.rounds[:4])
    told = side_by_side(record, shorter, with_digests(record))
    assert {each.same for each in told.rounds} == {None}
    assert told.rounds[5].sides[1] is None
    assert [each.same_measures for each in told.rounds] == [True] * 4 + [None] * 6
    nan = other(record, 3, loss=float("nan"), metrics={"b": b"\xff"})
    assert side_by_side(nan, nan).first_measures is None
    json.dumps(side_by_side(nan, shorter).to_dict(), allow_nan=False)


def test_a_record_is_read_a_round_at_a_time(record: RunRecord, tmp_path: Path) -> None:
    hostile = replace(record, about={'\n "rounds": [': 'x\n "rounds": [\n'})
    path = tmp_path / "history.json"
    save_record(hostile, path)
    head, rounds = stream_record(path)
    assert replace(head, rounds=tuple(rounds)) == hostile
    formatted = json.dumps(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(formatted, encoding="utf-8")
    head, rounds = stream_record(path)
    assert tuple(rounds) == hostile.rounds


def test_a_record_that_breaks_off_is_refused_where_it_does(
    record: RunRecord, tmp_path: Path
) -> None:
    path = tmp_path / "history.json"
    save_record(record, path)
    text = path.read_text(encoding="utf-8")
    for length in range(0, len(text) - 3, 997):
        path.write_text(text[:length], encoding="utf-8")
        with pytest.raises(StoredDataError):
            list(stream_record(path)[1])


def test_a_journals_rounds_have_every_clients_part(tmp_path: Path) -> None:
    journal = begun(tmp_path / "job")
    for number in range(1, 8):
        played(journal, number, ODD)
    late = LateEntry(fit(7), "c", Outcome.LATE, 3.0, part=part("c", outcome=Outcome.LATE))
    twice = LateEntry(fit(7), "a", Outcome.DUPLICATE, 0.0, part=part("a"))
    journal.phases.take_in((), [late, twice, twice])
    for at_once in (1, 3, 50):
        rounds = list(journalled_rounds(journal, at_once=at_once))
        assert [each.server_round for each in rounds] == list(range(1, 8))
        assert [as_part(each) for each in rounds[0].outcomes] == [bare(each) for each in ODD]
    journal.close()
    words = [(each.client_id, each.word, each.count) for each in rounds[-1].outcomes[len(ODD) :]]
    assert sorted(words) == [("a", "duplicate", 2), ("c", "late", 1)]


def bare(each: Part) -> Part:
    return replace(each, late_by=0.0)


def as_part(told: OutcomeRecord) -> Part:
    return Part(
        told.client_id,
        Outcome(told.word),
        told.reason,
        told.detail,
        told.seconds,
        told.num_examples,
        told.bytes,
        told.metrics,
        told.metrics_left_out,
        told.times,
    )


def test_a_journal_comes_first_and_the_record_adds_what_only_it_knows(tmp_path: Path) -> None:
    journal = begun(tmp_path / "digits")
    for number in (1, 2):
        played(journal, number, ODD)
    with opened_run(tmp_path / "digits") as run:
        assert (run.head.job, run.has_journal) == ("digits", True)
        (first, second) = run.rounds
    lost = replace(first, incomplete_uploads=3, outcomes=(), outcomes_left_out=len(ODD))
    save_record(
        RunRecord("digits", "FedAvg", "amqp://h", 9, "now", rounds=(lost,)),
        tmp_path / "digits" / "history.json",
    )
    with opened_run(tmp_path / "digits") as run:
        assert (run.head.broker, run.head.num_rounds) == ("amqp://h", 9)
        assert list(run.rounds) == [replace(first, incomplete_uploads=3), second]
    journal.close()


def journalled_run(folder: Path, rounds: int) -> tuple[RoundClosed, ...]:
    """A run in a journal; how its rounds closed."""
    journal = begun(folder)
    for number in range(1, rounds + 1):
        played(journal, number, ODD)
    closed = past_rounds(journal, rounds)
    journal.close()
    return closed


def test_the_record_of_a_resumed_run_is_filled_from_its_journal(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    closed = journalled_run(folder, 60)
    recorder = RunRecorder(tmp_path)
    recorder(RunStarted("digits", 60, "FedAvg", "amqp://h", closed, str(folder), "run"))
    before = load_record(folder)
    assert [each.outcomes for each in before.rounds] == [()] * 60
    recorder(RunEnded("digits", 60, 9.0, None, 0.3, {}))
    recorder.complete()
    with opened_run(folder) as run:
        assert load_record(folder).rounds == tuple(run.rounds)
    assert [len(each.outcomes) for each in load_record(folder).rounds] == [len(ODD)] * 60


def test_what_a_long_runs_record_drops_comes_back_in_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    closed = journalled_run(folder, 40)
    recorder = RunRecorder(tmp_path, most=9000)
    recorder(RunStarted("digits", 40, "FedAvg", "amqp://h", (), str(folder), "run"))
    for each in closed:
        for said in ODD:
            recorder(
                ClientOutcome(each.server_round, Phase.FIT, said.ask, said.outcome or Outcome.LATE)
            )
        recorder(replace(each, incomplete_uploads=2))
    recorder(RunEnded("digits", 40, 9.0, None, 0.3, {}))
    recorder.complete()
    record = load_record(folder)
    assert sum(each.outcomes_left_out for each in record.rounds) == 0
    assert {(len(each.outcomes), each.incomplete_uploads) for each in record.rounds} == {
        (len(ODD), 2)
    }


def test_without_a_journal_what_is_left_out_is_counted(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path, most=9000)
    for event in whole_run():
        recorder(event)
    record = load_record(tmp_path / JOB)
    left_out = sum(each.outcomes_left_out for each in record.rounds)
    assert left_out > 0
    assert left_out + sum(len(each.outcomes) for each in record.rounds) == 10 * ROUNDS + 1


def test_a_journal_that_is_damaged_leaves_the_record_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "digits"
    closed = journalled_run(folder, 2)
    (folder / DATABASE).write_bytes(b"no database")
    recorder = RunRecorder(tmp_path)
    recorder(RunStarted("digits", 2, "FedAvg", "amqp://h", closed, str(folder), "run"))
    recorder(RunEnded("digits", 2, 9.0, None, 0.3, {}))
    recorder.complete()
    assert [each.server_round for each in load_record(folder).rounds] == [1, 2]
    assert "history.json lacks what its journal has" in caplog.text


def test_asks_that_are_awaited_are_no_parts_of_a_record() -> None:
    """A stream's phase has both, and asks of one client several times."""
    answered, failed = Outcome.ACCEPTED, Outcome.FAILED
    row = PhaseRow(
        Phase.FIT,
        0,
        4,
        0,
        True,
        "",
        (
            TaskOutcome("a", answered),
            TaskOutcome("a", answered),
            TaskOutcome("b", failed, "no data"),
            TaskOutcome("c", answered),
        ),
        1.0,
        0,
        0,
        (),
        parts=(
            Part("a", answered, seconds=1.0),
            Part("d", None),
            Part("a", answered, seconds=2.0),
            Part("c", answered, seconds=3.0),
        ),
    )
    assert [(each.ask, each.seconds, each.reason) for each in row.known_parts()] == [
        ("a", 1.0, ""),
        ("a", 2.0, ""),
        ("b", None, "no data"),
        ("c", 3.0, ""),
    ]
