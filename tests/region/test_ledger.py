"""An aggregator's folder: complete after a kill at any moment, or refused with what to do."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from flmq.common import Parameters
from flmq.common.errors import RunError
from flmq.region.errors import LedgerDamaged, LedgerInUse, LedgerNotWritable
from flmq.region.judging import judge
from flmq.region.ledger import StoredLedger
from flmq.region.work import Held, OrderInWork, Stage
from flmq.server.replies.uploads import Uploads
from flmq.server.strategy.reply_check import spec_of
from flmq.wire import Reply
from flmq.wire.entries import write_entries
from flmq.wire.regional import PARTIAL_TENSORS
from tests.dying import Died, dies_at
from tests.region.stage import Stage as Scene
from tests.region.stage import flat, model

CLIENTS = ["ann", "bob"]


def open_order(scene: Scene) -> OrderInWork:
    work = OrderInWork(scene.order(CLIENTS))
    work.model, work.spec = model(), spec_of(model())
    return work


def held(work: OrderInWork, reply: Reply, uploads: Uploads | None = None) -> Held:
    """A reply as it is held; with ``uploads``, its parameters in a file."""
    if uploads is not None:
        reply = uploads.store(reply, reply.res.parameters)  # type: ignore[attr-defined]
    return work.add(judge(work, reply, 10, unpack=lambda it: it, store=lambda it, parameters: it))


@pytest.mark.parametrize("in_files", [False, True])
def test_what_is_held_is_there_again(memory_stage: Scene, tmp_path: Path, in_files: bool) -> None:
    ledger, work = StoredLedger(tmp_path), open_order(memory_stage)
    (tmp_path / "spool").mkdir()
    uploads = Uploads(tmp_path / "spool", None) if in_files else None
    ledger.put(work)
    ledger.hold([(work, held(work, memory_stage.reply(c), uploads)) for c in CLIENTS])
    assert len(list((tmp_path / "replies").iterdir())) == (2 if in_files else 0)
    ledger.close()
    (again,) = StoredLedger(tmp_path).orders()
    assert (again.order, again.stage) == (work.order, Stage.OPEN)
    assert again.entries() == work.entries()
    assert again.mean.finish().parameters() == flat(CLIENTS)


@pytest.mark.parametrize(
    ("point", "stage"),
    [("aggregator.partial_written", Stage.OPEN), ("aggregator.partial_kept", Stage.ANSWERED)],
)
def test_a_partial_sum_is_made_once_or_its_replies_are_there(
    memory_stage: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, stage: Stage
) -> None:
    ledger, work = StoredLedger(tmp_path), open_order(memory_stage)
    ledger.put(work)
    ledger.hold([(work, held(work, memory_stage.reply(c))) for c in CLIENTS])
    partial = Parameters([b"sum", write_entries(work.entries())], PARTIAL_TENSORS)
    with monkeypatch.context() as patch:
        patch.setattr("flmq.region.ledger.crash_point", dies_at(point))
        with pytest.raises(Died):
            ledger.answer(work, partial)
    ledger.close()
    (again,) = StoredLedger(tmp_path).orders()
    assert again.stage is stage
    if stage is Stage.OPEN:
        assert again.mean.finish().parameters() == flat(CLIENTS)
    else:
        assert again.partial is not None
        assert [bytes(tensor) for tensor in again.partial.tensors] == partial.tensors
        assert again.entries() == work.entries()


def _garbage(folder: Path) -> None:
    (folder / "aggregator.db").write_bytes(b"garbage" * 1000)


def _another_program(folder: Path) -> None:
    (folder / "aggregator.db").unlink()
    connection = sqlite3.connect(folder / "aggregator.db")
    connection.execute("CREATE TABLE orders (x)")
    connection.close()


def _no_order(folder: Path) -> None:
    connection = sqlite3.connect(folder / "aggregator.db")
    connection.execute("UPDATE orders SET sent = x'00'")
    connection.commit()
    connection.close()


def _lost_reply(folder: Path) -> None:
    for path in (folder / "replies").iterdir():
        path.write_bytes(b"x")


@pytest.mark.parametrize("spoil", [_garbage, _another_program, _no_order, _lost_reply])
def test_what_is_damaged_is_refused_with_what_to_do(
    memory_stage: Scene, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    folder = tmp_path / "main"
    ledger, work = StoredLedger(folder), open_order(memory_stage)
    ledger.put(work)
    (folder / "spool").mkdir()
    ledger.hold([(work, held(work, memory_stage.reply("ann"), Uploads(folder / "spool", None)))])
    ledger.close()
    spoil(folder)
    with pytest.raises(LedgerDamaged, match=r"Move .* away and start again") as caught:
        StoredLedger(folder).orders()
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_taken_away_ends_the_aggregator(
    memory_stage: Scene, tmp_path: Path
) -> None:
    memory_stage.aggregate(tmp_path)
    memory_stage.send_order(memory_stage.order(CLIENTS))
    memory_stage.report(lambda report: bool(report.orders))
    shutil.rmtree(tmp_path / "main")
    memory_stage.send_order(memory_stage.order(CLIENTS, round_=2))
    _, _, done = memory_stage.running[0]
    assert isinstance(done.exception(15.0), LedgerDamaged)


def test_a_folder_has_one_live_aggregator(tmp_path: Path) -> None:
    first = StoredLedger(tmp_path)
    with pytest.raises(LedgerInUse, match="another live aggregator"):
        StoredLedger(tmp_path)
    first.close()
    StoredLedger(tmp_path).close()


def test_the_spool_of_a_client_with_the_name_of_the_site_is_left_alone(
    memory_stage: Scene, tmp_path: Path
) -> None:
    kept = tmp_path / "main" / "spool" / "done.reply"
    kept.parent.mkdir(parents=True)
    kept.touch()
    memory_stage.aggregate(tmp_path)
    memory_stage.stop()
    assert kept.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerNotWritable, match="file") as caught:
        StoredLedger(tmp_path / "file" / "main")
    assert isinstance(caught.value, RunError)
