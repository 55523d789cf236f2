"""What a late reply costs: the same whether few were asked or many. Counted, not timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from flmq.common import Code, FitRes, Parameters, Status
from flmq.common.phase import Phase
from flmq.journal import ClosedPhase, JobIdentity, Journal, PhaseKey, Plan, PlannedAsk
from flmq.journal.phases import PhaseReader
from flmq.round import STREAM, Outcome, Policy, TaskOutcome
from flmq.server.job_identity import Job
from flmq.server.resumption.reply_journal import ReplyJournal
from flmq.wire import Reply

JOB = Job("job", "run", b"secret", 1)


class Counted:
    """How often closing sets are read, and task ids derived."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = self.derived = 0
        closed, task_id = PhaseReader.closed, Job.task_id

        def counted_closed(self_: PhaseReader, key: PhaseKey) -> ClosedPhase | None:
            self.read += 1
            return closed(self_, key)

        def counted_id(self_: Job, number: int, phase: Phase, ask: str, call: int) -> str:
            self.derived += 1
            return task_id(self_, number, phase, ask, call)

        monkeypatch.setattr(PhaseReader, "closed", counted_closed)
        monkeypatch.setattr(Job, "task_id", counted_id)


def closed_phases(folder: Path, *phases: tuple[PhaseKey, list[str]]) -> ReplyJournal:
    """The journal of a job whose clients left all these asks unanswered."""
    journal = Journal.open(folder)
    journal.begin(JobIdentity("job", "run", b"secret", 7), {}, {})
    journal.take_charge()
    for key, asks in phases:
        planned = tuple(PlannedAsk(ask, task_of(key, ask), b"task") for ask in asks)
        journal.phases.open(key, Plan(planned, None, Policy(min_results=0), {}))
        silent = tuple(TaskOutcome(ask, Outcome.SILENT, "deadline") for ask in sorted(asks))
        journal.phases.close(key, ClosedPhase("deadline", (), silent, 1.0))
    return ReplyJournal(journal, JOB)


def task_of(key: PhaseKey, ask: str) -> str:
    return JOB.task_id(key.server_round, key.phase, ask, key.call)


def reply_to(key: PhaseKey, ask: str) -> Reply:
    res = FitRes(Status(Code.OK, ""), Parameters([], ""), 1, {})
    client_id = ask.partition("#")[0]
    return Reply(task_of(key, ask), "job", key.server_round, key.phase, client_id, 1, b"", 0.0, res)


@pytest.mark.parametrize("asked", [10, 300])
def test_a_late_reply_reads_no_closing_set_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    key = PhaseKey(1, Phase.FIT)
    asks = [f"c{number}" for number in range(asked)]
    replies = closed_phases(tmp_path, (key, asks))
    late = [reply_to(key, ask) for ask in asks]
    counted = Counted(monkeypatch)
    found = [replies.recorded(each) for each in late]
    assert [each.ask for each in found if each is not None and not each.answered] == asks
    assert (counted.read, counted.derived) == (1, asked)


def test_a_late_answer_of_a_stream_reads_only_what_closed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [PhaseKey(1, Phase.FIT, STREAM + call) for call in range(50)]
    replies = closed_phases(tmp_path, *((key, ["a"]) for key in keys))
    late = [reply_to(key, "a") for key in keys]
    counted = Counted(monkeypatch)
    assert [each.key for reply in late if (each := replies.recorded(reply))] == keys
    assert (counted.read, counted.derived) == (50, 50)


def test_a_second_ask_of_a_client_is_told_from_its_first(tmp_path: Path) -> None:
    key = PhaseKey(1, Phase.FIT)
    replies = closed_phases(tmp_path, (key, ["a", "a#2", "b"]))
    found = replies.recorded(reply_to(key, "a#2"))
    assert found is not None
    assert (found.ask, found.answered) == ("a#2", False)
    assert replies.recorded(reply_to(key, "a#3")) is None
    assert replies.recorded(reply_to(PhaseKey(2, Phase.FIT), "a")) is None
