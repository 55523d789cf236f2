"""What an admitted client may send without end: memory, disk and the others' time are bounded."""

from __future__ import annotations

from pathlib import Path

from flmq.common.typing import FitRes, Metrics
from flmq.observe.events import Outcome
from tests.end_to_end.federation import OK, Federation, fed_avg, fit_res
from tests.end_to_end.fixtures import memory_federation
from tests.fuzz.harness import held_bytes

__all__ = ["memory_federation"]

_TIMES = 400


def test_the_same_reply_without_end_is_entered_once(
    memory_federation: Federation, tmp_path: Path
) -> None:
    one, other = memory_federation.peer("a"), memory_federation.peer("b")
    server = memory_federation.run(fed_avg(2), timeout=None, runs_dir=tmp_path)
    task, others = one.task(), other.task()
    metrics: Metrics = {f"metric {number}": 1.0 for number in range(300)}
    reply = FitRes(OK, fit_res(task).parameters, 1, metrics)
    held = 0
    for number in range(_TIMES):
        one.reply(task, reply)
        if number == _TIMES // 4:
            held = held_bytes()
    assert held_bytes() - held < 24 << 20
    other.reply(others)
    server.history()
    assert server.watch.words()["a"].count(Outcome.ACCEPTED) == 1
    journal = sum(path.stat().st_size for path in tmp_path.rglob("journal.db*"))
    assert journal < 1 << 20, "each of the 400 has 10 KB"
