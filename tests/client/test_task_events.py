"""What a worker tells its observers of each task, and what its log says of it."""

from __future__ import annotations

import logging

import pytest

from flmq.client.app import _to_log_and
from flmq.client.serving.worker import WorkerOptions
from flmq.common.logger import LOG_FIELDS, LOGGER_NAME, log
from flmq.common.typing import Config, Metrics, NDArrays
from flmq.observe.bus import WorkerBus
from flmq.observe.events import (
    ConnectionChanged,
    ReceiptCame,
    ReplySent,
    TaskReceived,
    TrainingEnded,
    TrainingStarted,
    WorkerEvent,
)
from flmq.observe.vitals import Vitals
from flmq.transport import ConnectionEvent, ConnectionState
from tests.end_to_end.federation import Federation, Nudge, fed_avg


class Talking(Nudge):
    """Logs while it trains, and fails in the second round."""

    rounds = 0

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        self.rounds += 1
        log(logging.INFO, "training")
        if self.rounds == 2:
            raise ValueError("no data")
        return super().fit(parameters, config)


def test_a_task_is_told_from_its_coming_to_its_receipt(memory_federation: Federation) -> None:
    seen: list[WorkerEvent] = []
    options = WorkerOptions(heartbeat=1.0, observers=[seen.append])
    memory_federation.serve("a", source=Talking("a"), options=options)
    memory_federation.run(fed_avg(1), rounds=2).history()
    memory_federation.workers["a"].stop()
    for server_round, word in ((1, "accepted"), (2, "accepted")):
        tasks = [event for event in seen if hasattr(event, "task")]
        of_round = [event for event in tasks if event.task.server_round == server_round]
        kinds = [type(event) for event in of_round]
        assert sorted(kinds, key=lambda kind: kind.__name__) == sorted(
            [TaskReceived, TrainingStarted, TrainingEnded, ReplySent, ReceiptCame],
            key=lambda kind: kind.__name__,
        )
        # The receipt may overtake what says that its reply was sent.
        assert kinds[:3] == [TaskReceived, TrainingStarted, TrainingEnded]
        times = [event.at for event in of_round[:3] if hasattr(event, "at")]
        assert times == sorted(times)
        (receipt,) = (event for event in of_round if isinstance(event, ReceiptCame))
        assert receipt.outcome == word
        assert len({event.task for event in of_round}) == 1
    good, bad = (event for event in seen if isinstance(event, TrainingEnded))
    assert (good.num_examples, good.error) == (Nudge("a").weight, "")
    assert good.seconds >= 0.0
    assert (bad.num_examples, bad.error) == (None, "ValueError: no data")


def test_what_is_logged_about_a_task_says_which(
    memory_federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    tasks: list[TaskReceived] = []

    def keep(event: WorkerEvent) -> None:
        if isinstance(event, TaskReceived):
            tasks.append(event)

    caplog.set_level(logging.DEBUG, LOGGER_NAME)
    options = WorkerOptions(heartbeat=1.0, observers=[keep])
    memory_federation.serve("a", source=Talking("a"), options=options)
    memory_federation.run(fed_avg(1), rounds=2).history()
    memory_federation.workers["a"].stop()

    def said(word: str) -> list[tuple[object, ...]]:
        return [
            tuple(getattr(record, name) for name in LOG_FIELDS if name != "run")
            for record in caplog.records
            if word in record.getMessage()
        ]

    first, second = (
        ("job", each.task.server_round, "fit", "a", each.task.task_id) for each in tasks
    )
    # What the client logs itself, what is logged of its failure, and of the server's receipts.
    assert said("training") == [first, second]
    assert said("ValueError: no data")[0] == second
    assert said("the server has our reply") == [first, second]


def test_a_connection_that_is_lost_is_told_to_a_workers_observers() -> None:
    seen: list[WorkerEvent] = []
    bus = WorkerBus([seen.append])
    tell = _to_log_and(bus, Vitals())
    for state in (ConnectionState.LOST, ConnectionState.CONNECTED):
        tell(ConnectionEvent("", state, "the broker went"))
    bus.close()
    assert seen == [
        ConnectionChanged("", "lost", "the broker went"),
        ConnectionChanged("", "connected", "the broker went"),
    ]
