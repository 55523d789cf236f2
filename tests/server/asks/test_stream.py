"""A loop without rounds on the asks: the one of the documentation, killed and started again."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from uuid import uuid4

import numpy as np
import pytest

from flmq.client import NumPyClient
from flmq.client.context import ClientContext
from flmq.common import (
    Config,
    FitIns,
    FitRes,
    Metrics,
    NDArrays,
    Parameters,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.journal.records import KeepPolicy
from flmq.round import Outcome
from flmq.server import SimpleClientManager, StreamServer
from flmq.server.asks import asks as asks_module
from flmq.server.asks.stream import Answer, AskStream
from flmq.server.replies import reply_loop
from flmq.server.resumption import checkpointer
from flmq.server.strategy import FedAvg
from tests.docs.pages import ROOT, program
from tests.dying import Died, dies_at
from tests.end_to_end.federation import Federation, RunningServer

CLIENTS = ("a", "b", "c", "d")
STEPS = 6
PLACES = [
    (asks_module, "server.phase_planned"),
    (asks_module, "server.tasks_published"),
    (asks_module, "server.phase_closed"),
    (reply_loop, "server.reply_journalled"),
    (checkpointer, "server.round_aggregated"),
    (checkpointer, "server.round_closed"),
]


@pytest.fixture(scope="module")
def quorum() -> ModuleType:
    module = ModuleType("quorum")
    exec(program(ROOT / "docs" / "asks.md", "quorum.py"), module.__dict__)
    return module


class Asked:
    """Clients of different speed, which count what they are asked."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.times: Counter[str] = Counter()

    def client(self, context: ClientContext) -> NumPyClient:
        times, lock, name = self.times, self.lock, context.client_id

        class Paced(NumPyClient):
            def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
                with lock:
                    times[str(config["ask"])] += 1
                number = CLIENTS.index(name)
                time.sleep(0.01 * number)
                step = np.float32(0.1 + number)
                return [tensor * np.float32(0.9) + step for tensor in parameters], 1, {}

        return Paced()


class Taken:
    """Notes each answer that is taken, and those that each step is made of."""

    def __init__(self, quorum: ModuleType) -> None:
        self.steps: dict[int, list[Answer]] = {}
        taken = self

        class Noting(quorum.MedianOfThree):  # type: ignore[name-defined, misc]
            def run(self, stream: AskStream, num_rounds: int) -> None:
                ask = stream.ask

                def named(client_id: str, ins: FitIns, server_round: int) -> None:
                    ask(client_id, replace(ins, config={"ask": uuid4().hex}), server_round)

                stream.ask = named  # type: ignore[method-assign, assignment]
                super().run(stream, num_rounds)

            def median(self, answers: list[Answer]) -> Any:
                number = self.rounds_closed + 1
                before = taken.steps.setdefault(number, [_kept(each) for each in answers])
                # A step that was cut short is made again of the same, in the same order.
                assert [_said(a) for a in before] == [_said(a) for a in answers]
                return super().median(answers)

        self.server = Noting

    def model(self, quorum: ModuleType) -> bytes:
        """The final model, computed anew from the answers alone."""
        loop = quorum.MedianOfThree(client_manager=SimpleClientManager())
        loop.parameters = ndarrays_to_parameters([np.zeros(3, np.float32)])
        for number in range(1, STEPS + 1):
            loop.parameters = loop.median(self.steps[number])
        return b"".join(loop.parameters.tensors)


def _kept(answer: Answer) -> Answer:
    """The answer, in memory: the files of its journal go with the next step."""
    ins, res = cast(FitIns, answer.ins), cast(FitRes, answer.res)
    return replace(
        answer,
        ins=replace(ins, parameters=_copied(ins.parameters)),
        res=replace(res, parameters=_copied(res.parameters)),
    )


def _copied(parameters: Parameters) -> Parameters:
    return ndarrays_to_parameters(parameters_to_ndarrays(parameters))


def _ask_of(answer: Answer) -> str:
    return str(cast(FitIns, answer.ins).config["ask"])


def _said(answer: Answer) -> tuple[str, bytes]:
    parameters = _copied(cast(FitRes, answer.res).parameters)
    return _ask_of(answer), b"".join(parameters.tensors)


def _start(federation: Federation, taken: Taken, folder: Path) -> RunningServer:
    first = ndarrays_to_parameters([np.zeros(3, np.float32)])
    server = taken.server(
        client_manager=SimpleClientManager(), strategy=FedAvg(initial_parameters=first)
    )
    keep = KeepPolicy(replies="all")
    return federation.run(server=server, rounds=STEPS, runs_dir=folder, keep=keep)


@pytest.mark.parametrize(("module", "place"), PLACES, ids=[name for _, name in PLACES])
def test_killed_and_resumed_no_answer_is_lost_or_taken_twice(
    memory_federation: Federation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quorum: ModuleType,
    module: ModuleType,
    place: str,
) -> None:
    asked, taken = Asked(), Taken(quorum)
    memory_federation.serve(*CLIENTS, source=asked.client)
    monkeypatch.setattr(module, "crash_point", dies_at(place, 3, 6))
    for _ in range(2):
        with pytest.raises(Died):
            _start(memory_federation, taken, tmp_path).history()
    last = _start(memory_federation, taken, tmp_path)
    assert last.model() == taken.model(quorum)
    assert set(asked.times.values()) == {1}  # no client was asked the same twice
    parts = [_ask_of(each) for step in taken.steps.values() for each in step]
    assert len(parts) == len(set(parts)) == STEPS * 3
    assert set(parts) <= asked.times.keys()


def test_without_a_journal_it_runs(memory_federation: Federation, quorum: ModuleType) -> None:
    asked, taken = Asked(), Taken(quorum)
    memory_federation.serve(*CLIENTS, source=asked.client)
    first = ndarrays_to_parameters([np.zeros(3, np.float32)])
    server = taken.server(
        client_manager=SimpleClientManager(), strategy=FedAvg(initial_parameters=first)
    )
    running = memory_federation.run(server=server, rounds=STEPS)
    assert running.model() == taken.model(quorum)
    assert [closed.server_round for closed in running.watch.rounds()] == [*range(1, STEPS + 1)]


def test_a_slow_client_has_its_deadline_while_others_are_quick(
    memory_federation: Federation,
) -> None:
    """Answers that never stop coming do not keep the stream from seeing to the others."""
    ended: list[Answer] = []

    class Loop(StreamServer):
        def run(self, stream: AskStream, num_rounds: int) -> None:
            self.client_manager().wait_for(2, 15)
            stream.ask("silent", FitIns(self.parameters, {}), 1)
            stream.ask("a", FitIns(self.parameters, {}), 1)
            for answer in stream:
                if answer.client_id == "silent":
                    ended.append(answer)
                    break
                stream.ask("a", FitIns(self.parameters, {}), 1)
            self.step(self.parameters, num_rounds)

    memory_federation.serve("a")
    memory_federation.peer("silent")
    first = ndarrays_to_parameters([np.zeros(3, np.float32)])
    loop = Loop(client_manager=SimpleClientManager(), strategy=FedAvg(initial_parameters=first))
    memory_federation.run(server=loop, rounds=1, timeout=2.0).history()
    assert ended[0].res is None
    assert ended[0].failure.outcome is Outcome.SILENT  # type: ignore[union-attr]
