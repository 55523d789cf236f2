"""When tasks were published, taken, trained, sent and counted: from the worker to the journal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flmq.common.times import TaskTimes, WorkerTimes
from flmq.journal import JournalReader, Part, open_to_read
from flmq.observe.courses.split import slowest_in, split_in
from flmq.observe.events import ClientOutcome, ClientPresence, Outcome, RunStarted
from flmq.observe.past_rounds import PastRounds
from flmq.observe.record import load_record
from flmq.observe.recorder import RunRecorder
from tests.end_to_end.federation import JOB, Federation, Nudge, RunningServer, fed_avg
from tests.end_to_end.test_processes import CLIENTS, Processes
from tests.transport.rigs import eventually

HOUR = 3600.0
DAY_AND_MORE = 26 * HOUR


class Clock:
    """A machine's clock that can be set."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Slow(Nudge):
    """Trains for a while."""

    def fit(self, *arguments: Any) -> Any:
        time.sleep(0.1)
        return super().fit(*arguments)


def read(folder: Path, job: str = JOB) -> JournalReader:
    return open_to_read(folder / job)


def outcomes(server: RunningServer) -> list[ClientOutcome]:
    return server.watch.of(ClientOutcome)


def in_order(times: TaskTimes) -> bool:
    course = [
        times.published_ms,
        times.taken_ms,
        times.begun_ms,
        times.training_started_ms,
        times.training_ended_ms,
        times.upload_started_ms,
        times.received_ms,
        times.counted_ms,
    ]
    known = [at for at in course if at is not None]
    return len(known) == len(course) and known == sorted(known)


def test_whatever_a_clients_clock_says_its_bars_are_where_they_belong(
    federation: Federation, tmp_path: Path
) -> None:
    stepping = Clock()
    federation.serve("right", source=lambda context: Slow(context.client_id))
    federation.serve("ahead", unix_clock=lambda: time.time() + 7 * HOUR)
    federation.serve("behind", unix_clock=lambda: time.time() - DAY_AND_MORE)
    federation.serve("stepping", unix_clock=stepping)

    def step(event: object) -> None:
        if isinstance(event, ClientOutcome) and event.client_id == "stepping":
            stepping.ahead = HOUR * event.server_round

    recorder = RunRecorder(tmp_path, rest=0.0)
    server = federation.run(
        fed_avg(4), rounds=3, runs_dir=tmp_path, observers=[step, recorder], timeout=None
    )
    server.history()
    told = outcomes(server)
    assert {each.outcome for each in told} == {Outcome.ACCEPTED}
    wrong = {"right": 0.0, "ahead": 7 * HOUR, "behind": -DAY_AND_MORE}
    for each in told:
        times = each.times
        assert times is not None
        assert (times.deliveries, times.deaths) == (1, 0)
        if each.client_id in wrong:
            assert times.clock, times
            assert in_order(times), times
            assert times.offset_ms is not None
            assert times.offset_error_ms is not None
            off = abs(times.offset_ms - 1000 * wrong[each.client_id])
            assert off <= times.offset_error_ms + 5
    slow = [e.times for e in told if e.client_id == "right" and e.phase.value == "fit" and e.times]
    for times in slow:
        assert times.training_started_ms is not None
        assert times.training_ended_ms is not None
        assert times.training_ended_ms - times.training_started_ms >= 95
    # It is known again once a task was wholly done after its clock was set, or said that it is not.
    for times in [e.times for e in told if e.client_id == "stepping"]:
        assert times is not None
        assert in_order(times) or times.clock_note
    with_versions = [e for e in server.watch.of(ClientPresence) if e.status == "online"]
    assert {each.version for each in with_versions} != {""}
    _is_told_alike(server, tmp_path)


def _is_told_alike(server: RunningServer, folder: Path) -> None:
    """Check that the journal, what is read late, and history.json say what observers were told."""
    told = {
        (e.server_round, e.phase.value, e.client_id): _what(e)
        for e in outcomes(server)
        if e.server_round
    }
    reader = read(folder)
    rows = reader.rounds(1, parts=True)
    reader.close()
    journalled = {
        (row.server_round, phase.phase.value, part.ask): part
        for row in rows
        for phase in row.phases
        for part in phase.parts
    }
    assert journalled == told
    for row in rows:
        split = split_in(row)
        assert split is not None
        assert row.seconds is not None
        total = split.of_clients + split.aggregation
        assert total == pytest.approx(max(row.seconds, split.of_clients), abs=0.01)
        assert slowest_in(row) is not None
    past = PastRounds(lambda: str(folder / JOB))
    late = [event for closed in server.watch.rounds() for event in past.details(closed)]
    assert {
        (e.server_round, e.phase.value, e.client_id): _what(e)
        for e in late
        if isinstance(e, ClientOutcome)
    } == told
    (started,) = server.watch.of(RunStarted)
    assert started.folder == str(folder / JOB)
    eventually(lambda: load_record(folder / JOB).ended is not None, 10.0)
    recorded = {
        (r.server_round, o.phase, o.client_id): (o.times, o.num_examples, dict(o.metrics))
        for r in load_record(folder / JOB).rounds
        for o in r.outcomes
    }
    assert recorded == {key: (p.times, p.num_examples, dict(p.metrics)) for key, p in told.items()}


def _what(told: ClientOutcome) -> Part:
    return Part(
        told.client_id,
        told.outcome,
        told.reason,
        told.detail,
        told.seconds,
        told.num_examples,
        told.bytes_up,
        dict(told.metrics),
        times=told.times,
    )


def test_what_a_peer_says_of_its_times_is_dropped_and_never_its_reply(
    federation: Federation, tmp_path: Path
) -> None:
    peer = federation.peer("liar")
    older = federation.peer("older")
    server = federation.run(fed_avg(2), rounds=1, runs_dir=tmp_path)
    for each, times in [(peer, WorkerTimes(5, 4, 3, 2, 1, 10**6, 0)), (older, None)]:
        each.reply(each.task(), times=times)
    server.history()
    fit = {e.client_id: e for e in outcomes(server) if e.phase.value == "fit"}
    assert {each.outcome for each in fit.values()} == {Outcome.ACCEPTED}
    lies, silence = fit["liar"].times, fit["older"].times
    assert lies is not None
    assert silence is not None
    assert "before taken" in lies.clock_note
    assert silence.worker is None
    assert silence.clock
    assert silence.published_ms is not None
    assert silence.received_ms is not None


@pytest.fixture
def processes(broker_url: str, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(broker_url, tmp_path)
    yield made
    made.end()


def test_parts_are_whole_after_server_and_clients_were_killed(processes: Processes) -> None:
    folder = f"--state-dir={processes.folder / 'state'}"
    options = {"a": (), "b": (folder,)}
    workers = {name: processes.client(name, *options[name]) for name in CLIENTS}
    processes.ends(processes.server("calm"))
    release = {name: processes.hold(name, 2) for name in CLIENTS}
    for mark in processes.marks.glob("*-2-*"):
        mark.unlink()
    server = processes.server("killed")
    for name, worker in workers.items():
        processes.wait_for_training(name, 2, worker.pid)
        worker.kill()
        worker.wait()
    server.kill()
    server.wait()
    workers = {name: processes.client(name, *options[name]) for name in CLIENTS}
    server = processes.server("killed")
    for name, worker in workers.items():
        processes.wait_for_training(name, 2, worker.pid)
        release[name].unlink()
    processes.ends(server)
    calm, killed = (_said(processes, job) for job in ("calm", "killed"))
    assert {key: _of_no_clock(part) for key, part in killed.items()} == {
        key: _of_no_clock(part) for key, part in calm.items()
    }
    for part in [*calm.values(), *killed.values()]:
        assert part.times is not None
        assert part.times.published_ms is not None
        assert part.times.counted_ms is not None
        assert part.seconds is not None
    for name in CLIENTS:
        times = killed[2, "fit", name].times
        assert times is not None
        assert times.deaths == 1, times
    again = killed[2, "fit", "a"].times
    assert again is not None
    assert again.deliveries is not None
    assert again.deliveries > 1


def _said(processes: Processes, job: str) -> dict[tuple[int, str, str], Part]:
    reader = read(processes.folder / "runs", job)
    rows = reader.rounds(1, parts=True)
    reader.close()
    return {
        (row.server_round, phase.phase.value, part.ask): part
        for row in rows
        for phase in row.phases
        for part in phase.parts
    }


def _of_no_clock(part: Part) -> tuple[object, ...]:
    metrics = sorted(part.metrics.items())
    return part.ask, part.outcome, part.reason, part.detail, part.num_examples, metrics
