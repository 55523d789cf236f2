"""Clients simulated in a pool of processes: the bits of threads, and processes that die."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.client import NumPyClient
from flmq.client.context import ClientContext
from flmq.client.pool.pool import ClientNotPicklable, ProcessesNotStarted
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.observe.events import ClientOutcome, Outcome, RoundCounts
from flmq.server import ServerConfig
from flmq.server.strategy import FedAvg
from flmq.simulation import start_simulation
from flmq.simulation.app import InvalidSimulation
from tests.end_to_end.federation import Nudge, Watch, fed_avg
from tests.transport.rigs import eventually

SMALL, MAPPED = 10, 100_000
"""Numbers of a model that goes with its task, and of one that is mapped."""


class Root(NumPyClient):
    """Gives other bits for other orders of adding; says in which process it was."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        moved = [p + np.float32(self.number / 7) for p in parameters]
        return moved, self.number + 1, {"pid": os.getpid()}


def _strategy(numbers: int) -> FedAvg:
    model = [np.zeros(numbers, np.float32), np.ones(3, np.float32)]
    return FedAvg(fraction_evaluate=0.0, initial_parameters=ndarrays_to_parameters(model))


def _dead(pids: set[int]) -> bool:
    return not any(Path(f"/proc/{pid}/stat").exists() for pid in pids)


@pytest.mark.parametrize("numbers", [SMALL, MAPPED])
def test_processes_give_the_bits_of_threads(numbers: int) -> None:
    def run(**hands: Any) -> tuple[bytes, set[int]]:
        watch = Watch()
        start_simulation(
            client_fn=lambda context: Root(int(context.client_id)),
            num_clients=8,
            strategy=_strategy(numbers),
            config=ServerConfig(num_rounds=3),
            observers=(watch,),
            **hands,
        )
        outcomes = watch.of(ClientOutcome)
        assert len(outcomes) == 24
        return watch.model(), {int(str(o.metrics["pid"])) for o in outcomes}

    with_threads, here = run(threads=2)
    with_processes, there = run(max_workers=2)
    assert with_processes == with_threads
    assert here == {os.getpid()}
    assert 1 <= len(there) <= 2
    assert os.getpid() not in there
    assert _dead(there)


def _dying(folder: Path, times: int) -> Callable[[ClientContext], NumPyClient]:
    """Make clients of which client 1 dies ``times``, and leaves somebody with its sockets."""

    class Dies(Nudge):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            begun = len(list(folder.iterdir()))
            if begun < times:
                (folder / str(begun)).touch()
                if os.fork() == 0:
                    time.sleep(300)
                os.kill(os.getpid(), signal.SIGKILL)
            return super().fit(parameters, config)

    def client_fn(context: ClientContext) -> NumPyClient:
        return (Dies if context.client_id == "1" else Nudge)(context.client_id)

    return client_fn


@pytest.mark.parametrize("times", [1, 3])
def test_a_process_that_dies_takes_only_its_task_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    """Once: the task is begun again, and the bits are those of an undisturbed run."""
    watch, undisturbed = Watch(), Watch()
    for seen, client_fn, workers in (
        (watch, _dying(tmp_path, times), 2),
        (undisturbed, lambda context: Nudge(context.client_id), None),
    ):
        start_simulation(
            client_fn=client_fn,
            num_clients=4,
            strategy=fed_avg(4),
            config=ServerConfig(num_rounds=2),
            max_workers=workers,
            observers=(seen,),
        )
    died = [r.getMessage() for r in caplog.records if "was ended by signal 9" in r.getMessage()]
    assert (
        "fit, client 1: its process was ended by signal 9 (SIGKILL; was memory short?)" in died[0]
    )
    first, second = (r.fit for r in watch.rounds())
    assert second == RoundCounts(asked=4, accepted=4)
    if times == 1:
        assert first == RoundCounts(asked=4, accepted=4)
        assert watch.model() == undisturbed.model()
        return
    assert first == RoundCounts(asked=4, accepted=3, failed=1)
    reasons = {o.reason for o in watch.of(ClientOutcome) if o.outcome is Outcome.FAILED}
    assert len(reasons) == 1
    assert reasons.pop().startswith("ProcessDied: its process was ended by signal 9")


def test_what_a_client_does_in_a_process_fails_as_on_a_thread() -> None:
    class Broken(NumPyClient):
        def __init__(self, raised: BaseException) -> None:
            self.raised = raised

        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            raise self.raised

    def client_fn(context: ClientContext) -> NumPyClient:
        if context.client_id == "1":
            raise OSError("no data")
        broken = {"2": ArithmeticError("no gradient"), "3": SystemExit(2)}
        raised = broken.get(context.client_id)
        return Nudge(context.client_id) if raised is None else Broken(raised)

    watch = Watch()
    start_simulation(
        client_fn=client_fn,
        num_clients=5,
        strategy=fed_avg(5),
        max_workers=1,
        observers=(watch,),
    )
    assert watch.rounds()[0].fit == RoundCounts(asked=5, accepted=2, failed=3)
    failed = [o for o in watch.of(ClientOutcome) if o.outcome is Outcome.FAILED]
    assert {o.client_id: o.reason for o in failed} == {
        "1": "OSError: no data",
        "2": "ArithmeticError: no gradient",
        "3": "SystemExit: 2",
    }
    assert all("client_fn" in o.detail or "fit" in o.detail for o in failed)


def test_a_simulation_that_ends_does_not_wait_for_its_processes(tmp_path: Path) -> None:
    def client_fn(context: ClientContext) -> NumPyClient:
        if context.client_id == "1":
            (tmp_path / str(os.getpid())).touch()
            time.sleep(300)
        return Nudge(context.client_id)

    watch = Watch()
    started = time.monotonic()
    start_simulation(
        client_fn=client_fn,
        num_clients=2,
        strategy=fed_avg(2),
        config=ServerConfig(num_rounds=1, target_results=1),
        max_workers=2,
        observers=(watch,),
    )
    assert time.monotonic() - started < 120
    assert watch.rounds()[0].fit == RoundCounts(asked=2, accepted=1, silent=1)
    assert _dead({int(path.name) for path in tmp_path.iterdir()})


KILLED = """
import os, pathlib, time
import numpy as np
from flmq.client import NumPyClient
from flmq.simulation import start_simulation
from tests.end_to_end.federation import fed_avg

class Slow(NumPyClient):
    def get_parameters(self, config):
        return [np.zeros(1)]

    def fit(self, parameters, config):
        pathlib.Path(os.environ["BEGUN"]).touch()
        time.sleep(300)

start_simulation(
    client_fn=lambda context: Slow(), num_clients=1, strategy=fed_avg(1), max_workers=1
)
"""


def test_a_program_that_is_killed_leaves_no_folder_of_models(tmp_path: Path) -> None:
    temporary, begun = tmp_path / "temporary", tmp_path / "begun"
    temporary.mkdir()
    root = str(Path(__file__).parents[2])
    more = {"TMPDIR": str(temporary), "PYTHONPATH": root, "BEGUN": str(begun)}
    program = [sys.executable, "-c", KILLED]
    process = subprocess.Popen(program, env={**os.environ, **more}, stderr=subprocess.DEVNULL)
    try:
        eventually(begun.exists, 60.0)
        assert list(temporary.glob("flmq-models-*"))
    finally:
        process.kill()
        process.wait()
    eventually(lambda: not list(temporary.glob("flmq-models-*")))


def test_clients_read_the_arguments_of_their_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no text among its paths is ignored, as Python does."""
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/nowhere")])
    monkeypatch.setattr(sys, "argv", ["program", "--rate=0.1"])

    class Tells(Nudge):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            fitted, count, _ = super().fit(parameters, config)
            return fitted, count, {"said": " ".join(sys.argv)}

    watch = Watch()
    start_simulation(
        client_fn=lambda context: Tells(context.client_id),
        num_clients=1,
        strategy=fed_avg(1),
        config=ServerConfig(num_rounds=1),
        max_workers=1,
        observers=(watch,),
    )
    assert watch.of(ClientOutcome)[0].metrics["said"] == "program --rate=0.1"


def test_a_client_that_writes_to_the_socket_of_its_process_fails_alone() -> None:
    class Writes(Nudge):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            for number in range(3, 500):
                with contextlib.suppress(OSError):
                    if stat.S_ISSOCK(os.fstat(number).st_mode):
                        os.write(number, b"\0\0\0\x05hello")
            return super().fit(parameters, config)

    watch = Watch()
    start_simulation(
        client_fn=lambda c: (Writes if c.client_id == "1" else Nudge)(c.client_id),
        num_clients=3,
        strategy=fed_avg(3),
        config=ServerConfig(num_rounds=1),
        max_workers=2,
        observers=(watch,),
    )
    assert watch.rounds()[0].fit == RoundCounts(asked=3, accepted=2, failed=1)
    (failed,) = [o for o in watch.of(ClientOutcome) if o.outcome is Outcome.FAILED]
    assert failed.client_id == "1"
    assert "its process said what cannot be read" in failed.reason


class Unreadable:
    """Becomes bytes, and nothing again."""

    def __call__(self, context: ClientContext) -> NumPyClient:
        raise AssertionError

    def __reduce__(self) -> tuple[Callable[[], object], tuple[()]]:
        return _not_here, ()


def _not_here() -> object:
    raise ModuleNotFoundError("No module named 'mine'")


def test_what_cannot_be_handed_to_processes_is_refused_at_the_start() -> None:
    lock = threading.Lock()
    before = set(threading.enumerate())

    def locked(context: ClientContext) -> NumPyClient:
        with lock:
            return Nudge(context.client_id)

    with pytest.raises(ClientNotPicklable, match=r"^locked cannot be handed .* threads$"):
        start_simulation(client_fn=locked, num_clients=2, max_workers=2)
    with pytest.raises(ProcessesNotStarted, match="ModuleNotFoundError: No module named 'mine'"):
        start_simulation(client_fn=Unreadable(), num_clients=2, max_workers=1)
    assert {t for t in threading.enumerate() if t.name != "flmq-pool-watch"} <= before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"threads": 1, "max_workers": 1}, "one of the two"),
        ({"max_workers": 0}, "max_workers=0: give a number of 1 or more"),
        ({"max_workers": "many"}, "max_workers='many'"),
        ({"max_workers": True}, "max_workers=True"),
        ({"threads": -1}, "threads=-1"),
        ({"client_resources": {"num_cpus": 0}}, "give a number above 0"),
        ({"client_resources": {"num_cpus": "1"}}, "give a number above 0"),
        ({"client_resources": {"num_cpus": float("nan")}}, "give a number above 0"),
    ],
)
def test_contradictory_hands_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSimulation, match=said):
        start_simulation(client_fn=lambda context: Nudge("a"), num_clients=2, **arguments)
