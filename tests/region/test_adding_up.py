"""An aggregator takes its site's replies, and answers its order with one sum, in the same bits."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from flmq.common import Code, FitRes, Status, ndarrays_to_parameters
from flmq.wire import (
    BlobChunk,
    EntryOutcome,
    Failure,
    FailureKind,
    PartialSum,
    ReceiptOutcome,
    Reply,
    SendPartial,
)
from flmq.wire.regional import list_digest, marked
from tests.region.stage import JOB, RUN, Stage, fit_res, flat

CLIENTS = ["ann", "bob", "cy", "dee"]


@pytest.fixture(params=["a folder", "no folder"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "state" if request.param == "a folder" else None


class TestASum:
    def test_of_all_replies_is_sent_once_they_are_there(
        self, stage: Stage, folder: Path | None
    ) -> None:
        stage.aggregate(folder)
        order = stage.send_order(stage.order(CLIENTS))
        for client in CLIENTS:
            stage.send_reply(stage.reply(client))
        mean, entries = stage.summed(order)
        assert mean == flat(CLIENTS)
        assert sorted(entries) == CLIENTS
        for client, entry in entries.items():
            assert entry.outcome is EntryOutcome.ACCEPTED
            assert isinstance(entry.res, FitRes)
            assert entry.res.num_examples == fit_res(client).num_examples
            assert entry.res.metrics == {"of": client}
            assert (entry.seconds, len(entry.digest)) == (0.5, 64)
            assert entry.bytes > 0
        stage.receipt(order, ReceiptOutcome.ACCEPTED)
        stage.report(lambda report: not report.orders)
        stage.stop()

    def test_of_large_replies_comes_in_chunks(self, stage: Stage, folder: Path | None) -> None:
        stage.aggregate(folder)
        size = 60_000
        order = stage.send_order(stage.order(CLIENTS, size=size))
        for client in CLIENTS:
            reply = stage.reply(client, res=fit_res(client, size))
            stage.send_reply(reply, chunk_bytes=50_000)
        assert stage.summed(order)[0] == flat(CLIENTS, size)
        stage.stop()

    def test_names_who_failed_and_who_is_rejected_and_why(self, stage: Stage) -> None:
        stage.aggregate()
        order = stage.send_order(stage.order(CLIENTS))
        broken = Failure(FailureKind.EXCEPTION, "ValueError", "no data", "tail")
        nan = ndarrays_to_parameters([np.full(5, np.nan, np.float32), np.ones((1, 2))])
        stage.send_reply(stage.reply("ann", res=broken))
        stage.send_reply(stage.reply("bob", res=FitRes(Status(Code.OK, ""), nan, 3, {})))
        stage.send_reply(
            stage.reply("cy", res=FitRes(Status(Code.FIT_NOT_IMPLEMENTED, "no"), nan, 0, {}))
        )
        stage.send_reply(stage.reply("dee"))
        mean, entries = stage.summed(order)
        assert mean == flat(["dee"])
        assert entries["ann"].res == broken
        assert "NaN" in entries["bob"].reason
        words = [entries[client].outcome.value for client in CLIENTS]
        assert words == ["failed", "rejected", "failed", "accepted"]
        stage.stop()

    def test_is_sent_before_the_deadline_with_what_there_is(self, memory_stage: Stage) -> None:
        stage = memory_stage
        stage.aggregate()
        soon = int((time.time() + 2.0) * 1000)
        order = stage.send_order(stage.order(CLIENTS, deadline_unix_ms=soon, timeout_seconds=10.0))
        stage.send_reply(stage.reply("ann"))
        mean, entries = stage.summed(order)
        assert time.time() * 1000 < soon
        assert (list(entries), mean) == (["ann"], flat(["ann"]))
        stage.stop()

    def test_is_sent_when_the_server_wants_it(self, memory_stage: Stage) -> None:
        stage = memory_stage
        stage.aggregate()
        order = stage.send_order(stage.order(CLIENTS))
        stage.send_reply(stage.reply("bob"))
        stage.report(lambda report: any(any(each.held) for each in report.orders))
        stage.tell(SendPartial(order.task_id, JOB, 7, RUN))
        assert list(stage.summed(order)[1]) == ["bob"]
        stage.stop()

    def test_is_the_same_each_time_until_there_is_a_receipt(
        self, stage: Stage, tmp_path: Path
    ) -> None:
        stage.aggregate(tmp_path)
        order = stage.send_order(stage.order(CLIENTS[:2]))
        for client in CLIENTS[:2]:
            stage.send_reply(stage.reply(client))
        first = stage.partial(order)
        stage.stop()
        stage.aggregate(tmp_path)
        again = stage.partial(order)
        assert again == first
        stage.receipt(order, ReceiptOutcome.ACCEPTED)
        stage.report(lambda report: not report.orders)
        stage.stop()
        stage.aggregate(tmp_path)
        stage.silence(PartialSum)
        stage.stop()


class TestAnOrder:
    def test_that_comes_again_changes_nothing(self, memory_stage: Stage) -> None:
        stage = memory_stage
        stage.aggregate()
        order = stage.order(CLIENTS)
        for client in CLIENTS:
            stage.send_order(order)
            stage.send_reply(stage.reply(client))
            stage.send_reply(stage.reply(client))
        assert stage.summed(order)[0] == flat(CLIENTS)
        stage.stop()

    def test_that_leaves_out_clients_leaves_them_out_of_the_sum(self, memory_stage: Stage) -> None:
        stage = memory_stage
        stage.aggregate()
        order = stage.send_order(stage.order(CLIENTS))
        for client in CLIENTS[:3]:
            stage.send_reply(stage.reply(client))
        stage.report(lambda report: any(each.held == b"\x07" for each in report.orders))
        left = stage.send_order(stage.order(["bob", "cy", "eve"]))
        mean, entries = stage.summed(left)
        assert sorted(entries) == ["bob", "cy"]
        assert mean == flat(["bob", "cy"])
        stage.send_reply(stage.reply("ann"))
        got = stage.wait_for(Reply)
        assert isinstance(got, Reply)
        assert got.client_id == "ann"
        assert order.task_id == left.task_id
        stage.stop()

    def test_is_reported_with_what_is_held_of_it(self, memory_stage: Stage) -> None:
        stage = memory_stage
        stage.aggregate()
        order = stage.send_order(stage.order(CLIENTS))
        stage.send_reply(stage.reply("cy"))
        report = stage.report(lambda report: any(any(each.held) for each in report.orders))
        (in_hand,) = report.orders
        assert (in_hand.task_id, in_hand.list_digest) == (order.task_id, list_digest(order.asks))
        assert marked(order.asks, in_hand.held) == {stage.asked("cy").task_id}
        assert not in_hand.answered
        assert report.covers == ("main",)
        stage.stop()
        assert stage.report(lambda report: report.report_seconds == 0)

    def test_of_a_job_that_is_over_is_forgotten(self, memory_stage: Stage, tmp_path: Path) -> None:
        stage = memory_stage
        stage.aggregate(tmp_path)
        stage.send_order(stage.order(CLIENTS))
        stage.send_reply(stage.reply("cy"))
        stage.report(lambda report: bool(report.orders))
        stage.end_job()
        stage.report(lambda report: not report.orders)
        stage.stop()
        assert not any((tmp_path / "main" / "replies").iterdir())

    def test_of_an_earlier_server_is_left_alone_and_of_a_later_run_ends_the_earlier(
        self, memory_stage: Stage
    ) -> None:
        stage = memory_stage
        stage.aggregate()
        stage.send_order(stage.order(CLIENTS))
        stage.send_order(stage.order(CLIENTS, round_=3))
        stage.send_order(stage.order(CLIENTS, round_=2, epoch=6))
        stage.send_order(stage.order(CLIENTS, round_=9, job="other"))
        third, fourth, ninth = (stage.order(CLIENTS, round_=number).task_id for number in (3, 4, 9))
        stage.report(lambda report: [each.task_id for each in report.orders] == [third, ninth])
        stage.send_order(stage.order(CLIENTS, round_=4, run="run-2", epoch=1))
        stage.report(lambda report: [each.task_id for each in report.orders] == [ninth, fourth])
        stage.stop()


class TestAReply:
    def test_after_the_sum_goes_on_to_the_server_unchanged(self, stage: Stage) -> None:
        stage.aggregate()
        order = stage.send_order(stage.order(CLIENTS))
        stage.send_reply(stage.reply("ann"))
        stage.report(lambda report: any(any(each.held) for each in report.orders))
        stage.tell(SendPartial(order.task_id, JOB, 7, RUN))
        stage.partial(order)
        late = stage.reply("bob", res=fit_res("bob", 20_000))
        stage.send_reply(late, chunk_bytes=50_000)
        got = stage.wait_for(Reply)
        assert isinstance(got, Reply)
        assert (got.client_id, got.nonce) == ("bob", late.nonce)
        while len(stage.chunks) < 2:
            stage.wait_for(BlobChunk)
        assert isinstance(late.res, FitRes)
        sent = b"".join(bytes(chunk.data) for chunk in stage.chunks)
        assert sent == b"".join(late.res.parameters.tensors)
        stage.stop()

    def test_without_an_order_waits_for_it(self, memory_stage: Stage) -> None:
        stage = memory_stage
        stage.aggregate()
        for client in CLIENTS:
            stage.send_reply(stage.reply(client))
        stage.silence(Reply, 0.3)
        order = stage.send_order(stage.order(CLIENTS))
        assert stage.summed(order)[0] == flat(CLIENTS)
        stage.stop()

    def test_without_an_order_goes_on_after_a_while(
        self, memory_stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flmq.region.strays.WAIT", 0.2)
        stage = memory_stage
        stage.aggregate()
        stage.send_reply(stage.reply("ann"))
        got = stage.wait_for(Reply)
        assert got == stage.reply("ann")
        stage.stop()

    def test_that_says_it_is_settled_goes_on_to_the_server(self, memory_stage: Stage) -> None:
        stage = memory_stage
        stage.aggregate()
        stage.send_order(stage.order(CLIENTS))
        settled = stage.reply("ann", res=Failure(FailureKind.SETTLED))
        stage.send_reply(settled)
        assert stage.wait_for(Reply) == settled
        stage.stop()
