"""What is written is there again when the journal is opened anew; only what is needed stays."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flmq.common import Parameters
from flmq.common.errors import JobInUse
from flmq.common.phase import Phase
from flmq.journal import (
    Contribution,
    Journal,
    JournalNotWritable,
    KeepPolicy,
    LateEntry,
    NotKept,
    PhaseKey,
    Plan,
    PlannedAsk,
    UnsavableState,
)
from flmq.round import DIRECT, STREAM, Outcome, Policy, TaskOutcome
from tests.journal.runs import (
    ABOUT,
    FINGERPRINT,
    IDENTITY,
    answer,
    closing,
    end_round,
    fit,
    model,
    names,
    plan,
    play_round,
    reopened,
    told,
    upload,
)


def test_a_new_folder_holds_no_run(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "a" / "b")
    assert journal.identity is None
    assert journal.finished is None
    assert journal.rounds() == []
    assert journal.last_checkpoint() is None
    with pytest.raises(RuntimeError, match="begin comes first"):
        journal.take_charge()
    journal.close()
    assert Journal.open(tmp_path / "a" / "b").identity is None


def test_a_run_is_known_again(journal: Journal) -> None:
    journal = reopened(journal)
    assert journal.identity == IDENTITY
    assert journal.fingerprint() == FINGERPRINT
    assert journal.about == ABOUT
    assert journal.started_unix_ms > 1_700_000_000_000
    assert "secret" not in repr(journal.identity)


def test_a_run_begins_once(journal: Journal) -> None:
    with pytest.raises(JobInUse):
        Journal.open(journal.folder).begin(IDENTITY, {}, {})


def test_all_is_there_again(journal: Journal) -> None:
    end_round(journal, 0)
    play_round(journal, 1)
    ref = journal.put_parameters(model(7))
    journal.phases.open(
        fit(2), plan(["b", "a", "c"], 2, ref.digest, rng=np.random.default_rng(1).random(3))
    )
    path, blob = upload(journal, model(8))
    journal.adopt_reply("a-2", path, blob)
    journal.phases.contribute(fit(2), answer("a", 2, blob=blob))
    journal.phases.contribute(
        fit(2), answer("b", 2, kind=Outcome.FAILED, reason="ValueError: x", detail="tb")
    )
    journal.phases.tick(fit(2), 12.25)
    before = told(journal)
    assert told(reopened(journal)) == before


def test_a_phase_is_found_as_it_was(journal: Journal) -> None:
    assert journal.phases.find(fit(1)) is None
    wanted = Plan(
        (PlannedAsk("b", "t-b", b"\0task"), PlannedAsk("a", "t-a", b"")),
        None,
        Policy(2, None),
        {"m": np.arange(2000.0), "n": (1, 2)},
    )
    journal.phases.open(fit(1), wanted)
    journal = reopened(journal)
    record = journal.phases.find(fit(1))
    assert record is not None
    assert (record.plan.asks, record.plan.timeout, record.plan.policy) == (
        wanted.asks,
        None,
        wanted.policy,
    )
    assert record.plan.state["n"] == (1, 2)
    assert np.array_equal(record.plan.state["m"], np.arange(2000.0))  # type: ignore[arg-type]
    assert (record.elapsed, record.contributions, record.closed) == (0.0, (), None)


def test_contributions_come_in_the_order_of_arrival_and_once_a_client(journal: Journal) -> None:
    journal.phases.open(fit(1), plan(["a", "b", "c"]))
    assert journal.phases.contribute(fit(1), answer("c")) is Outcome.ACCEPTED
    assert journal.phases.contribute_many(
        [
            (fit(1), answer("a", kind=Outcome.REJECTED, reason="NaN")),
            (fit(1), answer("c", reply=b"another")),
            (fit(1), answer("b")),
        ]
    ) == [Outcome.REJECTED, Outcome.DUPLICATE, Outcome.ACCEPTED]
    record = journal.phases.find(fit(1))
    assert record is not None
    assert [(c.client_id, c.kind, c.reply) for c in record.contributions] == [
        ("c", Outcome.ACCEPTED, b"reply of c"),
        ("a", Outcome.REJECTED, b"reply of a"),
        ("b", Outcome.ACCEPTED, b"reply of b"),
    ]
    journal.phases.close(fit(1), closing("b", "c"))
    assert journal.phases.contribute(fit(1), answer("d")) is Outcome.LATE
    assert journal.phases.contribute(fit(1), answer("a")) is Outcome.DUPLICATE
    assert journal.phases.find(fit(1)) == replace(record, elapsed=1.5, closed=closing("b", "c"))


def test_a_closing_set_is_final_and_made_of_what_was_journalled(journal: Journal) -> None:
    journal.phases.open(fit(1), plan(["a", "b"]))
    journal.phases.contribute(fit(1), answer("a"))
    journal.phases.contribute(fit(1), answer("b", kind=Outcome.FAILED))
    with pytest.raises(RuntimeError, match="holds b, whose reply was not journalled"):
        journal.phases.close(fit(1), closing("a", "b"))
    assert journal.phases.closed(fit(1)) is journal.phases.closed(fit(2)) is None
    journal.phases.close(fit(1), closing("a", silent=["b"]))
    journal.phases.close(fit(1), closing("a", silent=["b"]))
    assert journal.phases.closed(fit(1)) == closing("a", silent=["b"])
    with pytest.raises(RuntimeError, match="that is final"):
        journal.phases.close(fit(1), closing("a"))


def test_mistakes_of_the_caller_change_nothing(journal: Journal) -> None:
    journal.phases.open(fit(1), plan(["a"]))
    before = told(journal)
    with pytest.raises(RuntimeError, match="round 1, fit was opened before"):
        journal.phases.open(fit(1), plan(["a"]))
    with pytest.raises(RuntimeError, match=r"parameters 0000.* were not put"):
        journal.phases.open(fit(2), plan(["a"], 2, "0" * 64))
    with pytest.raises(RuntimeError, match="round 3, fit, call 1 was not opened"):
        journal.phases.contribute(fit(3, 1), answer("a"))
    with pytest.raises(UnsavableState, match=r"state_dict\(\)\['s'\] is a set"):
        journal.phases.open(fit(2), plan(["a"], 2, None, s=set()))
    with pytest.raises(UnsavableState, match=r"history\['loss'\] is a object"):
        journal.checkpoint(1, model(1), {"loss": object()}, {}, {})
    assert told(journal) == before
    unopened = Journal.open(journal.folder)
    with pytest.raises(RuntimeError, match="take_charge comes first"):
        unopened.phases.tick(fit(1), 1.0)
    journal.close()
    journal.close()
    with pytest.raises(RuntimeError, match="was closed"):
        journal.rounds()


def test_time_never_runs_back(journal: Journal) -> None:
    journal.phases.open(fit(1), plan([]))
    for seconds in (3.0, 2.0):
        journal.phases.tick(fit(1), seconds)
    record = journal.phases.find(fit(1))
    assert record is not None
    assert record.elapsed == 3.0


def test_a_round_for_people(journal: Journal) -> None:
    play_round(journal, 1)
    journal.phases.open(fit(2), plan(["a", "b"], 2))
    journal.phases.contribute(fit(2), answer("b", 2, kind=Outcome.FAILED, reason="x"))
    journal.phases.tick(fit(2), 4.0)
    first, second = reopened(journal).rounds()
    assert (first.server_round, first.done, first.loss, first.seconds) == (1, True, 0.5, 2.0)
    assert first.metrics == {"accuracy": 0.5}
    (phase,) = first.phases
    assert (phase.phase, phase.asked, phase.open, phase.reason) == (
        Phase.FIT,
        2,
        False,
        "all answered",
    )
    assert phase.outcomes == (
        TaskOutcome("a", Outcome.ACCEPTED),
        TaskOutcome("b", Outcome.ACCEPTED),
    )
    assert (phase.seconds, phase.bytes_down, phase.bytes_up) == (1.5, 100, 200)
    assert (second.done, second.loss, second.metrics, second.summary) == (False, None, {}, {})
    (phase,) = second.phases
    assert (phase.open, phase.seconds, phase.outcomes) == (
        True,
        4.0,
        (TaskOutcome("b", Outcome.FAILED, "x"),),
    )


def test_a_checkpoint_is_gone_on_from(journal: Journal) -> None:
    end_round(journal, 0)
    digest = end_round(journal, 1)
    last = reopened(journal).last_checkpoint()
    assert last is not None
    assert last.server_round == 1
    assert last.parameters == model(1)
    assert last.history == {"losses_centralized": [[1, 1.1]]}
    assert last.state["step"] == 1
    assert np.array_equal(last.state["momentum"], np.full(1000, 1.0))
    assert digest in {info.digest for info in journal.__class__.open(journal.folder).checkpoints()}


def test_an_empty_model_can_be_kept(journal: Journal) -> None:
    journal.checkpoint(0, Parameters([], "numpy.ndarray"), {}, {}, {})
    last = reopened(journal).last_checkpoint()
    assert last is not None
    assert last.parameters == Parameters([], "numpy.ndarray")


def test_checkpoints_go_forward(journal: Journal) -> None:
    end_round(journal, 2)
    end_round(journal, 2, loss=0.25)
    with pytest.raises(ValueError, match="a checkpoint of round 1 after one of round 2"):
        end_round(journal, 1)
    assert journal.rounds_done == 2
    assert journal.rounds()[0].loss == 0.25


def test_only_what_is_needed_stays_on_disk(journal: Journal) -> None:
    for number in range(1, 4):
        play_round(journal, number)
        assert len(names(journal.folder / "blobs")) == 3  # the model, and two arrays
        assert names(journal.folder / "replies") == set()
    journal.put_parameters(model(50))
    end_round(journal, 4)
    assert len(names(journal.folder / "blobs")) == 4  # what was put may yet be named
    journal = reopened(journal)
    assert len(names(journal.folder / "blobs")) == 3  # and now nobody will
    with pytest.raises(NotKept, match="round 2, fit: its plan and replies were let go"):
        journal.phases.find(fit(2))
    assert [row.server_round for row in journal.rounds()] == [1, 2, 3, 4]


def test_the_file_does_not_grow_with_the_rounds(journal: Journal) -> None:
    sizes = []
    for number in range(1, 25):
        journal.phases.open(fit(number), plan(["a"], number))
        journal.phases.contribute(fit(number), answer("a", number, reply=bytes(100_000)))
        journal.phases.close(fit(number), closing("a"))
        end_round(journal, number)
        sizes.append(sum(p.stat().st_size for p in journal.folder.rglob("*") if p.is_file()))
    assert sizes[-1] - sizes[2] < 50_000


def test_replies_can_be_kept_for_good(journal: Journal) -> None:
    journal.keep(KeepPolicy(replies="all"))
    for number in (1, 2):
        play_round(journal, number)
    journal = reopened(journal)
    record = journal.phases.find(fit(1))
    assert record is not None
    assert journal.parameters(str(record.plan.asks[0].model)) == model(0)
    assert journal.reply_parameters(record.contributions[0]) == model(1001)
    assert journal.reply_parameters(record.contributions[1]) is None


def test_the_best_the_last_and_every_kth_are_kept(journal: Journal) -> None:
    journal.keep(KeepPolicy(best="loss", every=3))
    losses = [9.0, float("nan"), 2.0, 5.0, 2.0, 7.0, 6.0, 8.0]
    for number, loss in enumerate(losses):
        end_round(journal, number, loss)
    journal = reopened(journal)
    kept = {info.server_round: info for info in journal.checkpoints()}
    assert {number: info.kept_as for number, info in kept.items()} == {
        0: ("every",),
        2: ("best",),
        3: ("every",),
        6: ("every",),
        7: ("last",),
    }
    assert journal.parameters(kept[2].digest) == model(2)
    assert kept[2].path.stat().st_size == kept[2].bytes
    assert [row.loss for row in journal.rounds()][2:] == losses[2:]


def test_the_best_by_a_metric(journal: Journal) -> None:
    journal.keep(KeepPolicy(best="accuracy"))
    for number, loss in enumerate([0.5, 0.1, 0.1, 0.4]):
        end_round(journal, number, loss)
    journal.checkpoint(4, model(4), {}, {}, {"loss": None, "metrics": {"accuracy": "high"}})
    assert [(i.server_round, i.kept_as) for i in journal.checkpoints()] == [
        (1, ("best",)),
        (4, ("last",)),
    ]


def test_policies_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="every is 0"):
        KeepPolicy(every=0)
    with pytest.raises(ValueError, match='give "round" or "all"'):
        KeepPolicy(replies="none")


def test_phases_in_flight_survive_a_checkpoint(journal: Journal) -> None:
    """A call of another thread, or a round that overlaps the next."""
    asking = PhaseKey(0, Phase.GET_PROPERTIES)
    journal.phases.open(asking, plan(["x"]))
    journal.phases.open(fit(1), plan(["a"]))  # opened by a server that died: nobody asks for it
    journal = reopened(journal)
    assert journal.phases.find(asking) is not None
    end_round(journal, 1)
    assert journal.phases.find(asking) is not None
    with pytest.raises(NotKept):
        journal.phases.find(fit(1))
    journal.phases.contribute(asking, answer("x"))
    journal.phases.close(asking, closing("x"))
    end_round(journal, 2)
    with pytest.raises(NotKept):
        journal.phases.find(asking)


def test_what_was_left_open_and_what_no_checkpoint_covers_is_told(journal: Journal) -> None:
    def key(call: int) -> PhaseKey:
        return PhaseKey(0, Phase.GET_PROPERTIES, STREAM + call)

    for call in (0, 1, 2):
        journal.phases.open(key(call), plan([f"c{call}"]))
    rounds = PhaseKey(0, Phase.FIT), PhaseKey(0, Phase.FIT, DIRECT + 7)  # of no stream
    for each in rounds:
        journal.phases.open(each, plan([]))
        journal.phases.close(each, closing())
    assert journal.phases.unsettled(Phase.FIT) == []
    journal.phases.close(key(1), closing())
    assert sorted(journal.phases.left_open().values(), key=str) == [(key(0), "c0"), (key(2), "c2")]
    assert journal.phases.unsettled(Phase.GET_PROPERTIES) == [key(1), key(0), key(2)]
    assert journal.phases.closed_calls(0, Phase.GET_PROPERTIES) == [key(1)]
    end_round(journal, 0)
    journal = reopened(journal)
    assert journal.phases.unsettled(Phase.GET_PROPERTIES) == [key(0), key(2)]
    assert journal.phases.find(key(2)) is not None


def test_answers_of_a_stream_are_told_in_the_order_in_which_they_were_taken(
    journal: Journal,
) -> None:
    keys = [PhaseKey(0, Phase.FIT, STREAM + call) for call in range(5)]
    for key in keys:
        journal.phases.open(key, plan([]))
    taken = [keys[number] for number in (3, 0, 4, 1)]
    for key in taken:  # within one millisecond
        journal.phases.close(key, closing())
    assert journal.phases.unsettled(Phase.FIT) == [*taken, keys[2]]


def test_a_reply_is_adopted_once_and_for_its_digest(journal: Journal) -> None:
    journal.phases.open(fit(1), plan(["a"]))
    path, ref = upload(journal, model(1))
    where = journal.adopt_reply("a-1", path, ref)
    assert not path.exists()
    other, other_ref = upload(journal, model(2))
    assert journal.adopt_reply("a-1", other, other_ref) != where
    journal.phases.contribute(fit(1), answer("a", blob=ref))
    record = journal.phases.find(fit(1))
    assert record is not None
    assert journal.reply_parameters(record.contributions[0]) == model(1)
    with pytest.raises(JournalNotWritable, match="No such file"):
        journal.adopt_reply("b-1", path, ref)


def test_an_adopted_reply_waits_for_its_record(journal: Journal) -> None:
    path, ref = upload(journal, model(1))
    where = journal.adopt_reply("a-1", path, ref)
    end_round(journal, 1)
    assert where.exists()
    reopened(journal)
    assert not where.exists()


def test_the_same_parameters_are_written_and_loaded_once(journal: Journal) -> None:
    ref = journal.put_parameters(model(1))
    path = journal.folder / "blobs" / f"{ref.digest}.blob"
    first = path.stat()
    assert journal.put_parameters(model(1), ref) == ref
    assert path.stat().st_ino == first.st_ino
    path.write_bytes(b"short")
    journal.put_parameters(model(1))
    one = journal.parameters(ref.digest)
    assert one == model(1)
    assert journal.parameters(ref.digest) is one
    one.tensors = [b"mine"]
    assert journal.parameters(ref.digest) == model(1)


def test_an_ending(journal: Journal) -> None:
    assert journal.finished is None
    journal.finish({"reason": "all rounds done", "seconds": float("inf")})
    assert reopened(journal).finished == {"reason": "all rounds done", "seconds": float("inf")}


def test_many_threads_write_at_once(journal: Journal) -> None:
    clients = [f"client-{i}" for i in range(60)]
    journal.phases.open(fit(1), plan(clients))
    words: list[Outcome] = []

    def work(mine: list[str]) -> None:
        for client in mine:
            words.append(journal.phases.contribute(fit(1), answer(client)))
            journal.phases.take_in((), [LateEntry(fit(1), client, Outcome.DUPLICATE, 1.0)])

    threads = [threading.Thread(target=work, args=(clients[i::3] + clients[:5],)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = reopened(journal).phases.find(fit(1))
    assert record is not None
    assert sorted(c.client_id for c in record.contributions) == sorted(clients)
    assert words.count(Outcome.ACCEPTED) == 60
    assert words.count(Outcome.DUPLICATE) == 15


def test_a_contribution_names_everything(journal: Journal) -> None:
    journal.phases.open(fit(1), plan(["a"]))
    path, ref = upload(journal, model(1))
    ref = replace(ref, codec="zstd", base="1" * 64, chunk_bytes=7, published_unix_ms=5)
    journal.adopt_reply("t", path, ref)
    whole = Contribution("a", "t", Outcome.ACCEPTED, "why", "tail\n", b"\0\xff", ref, 2**40)
    journal.phases.contribute(fit(1), whole)
    record = reopened(journal).phases.find(fit(1))
    assert record is not None
    assert record.contributions == (whole,)
