"""What a client has finished counts, whatever is lost between it and its server, and nobody waits.

Real processes over a real broker: queues deleted, the broker's data wiped, the run's folder put
back from an earlier copy. Every run ends with the model of the one that nobody disturbs.
"""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from flmq.broker.node import PrivateNode
from flmq.common import Scalar
from flmq.server import ServerConfig
from flmq.server.components import ServerAppComponents
from flmq.server.context import ServerContext
from flmq.server.options import RunOptions
from flmq.simulation.app import simulate
from flmq.transport import client_queue, presence_queue, replies_queue, uploads_queue
from flmq.transport.rabbitmq import RabbitMQTransport
from tests.end_to_end import held
from tests.end_to_end.federation import Watch
from tests.end_to_end.test_processes import CLIENTS, ROUNDS, SLOW, Processes
from tests.transport.rigs import eventually

ANEW = "it does the task anew"
KEPT = "no queue for the reply of a: it is kept"


@pytest.fixture
def processes(broker_url: str, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(broker_url, tmp_path)
    yield made
    made.end()


@cache
def _undisturbed(folder: Path, **config: Scalar) -> bytes:
    """The model of the run that nobody disturbs."""
    watch = Watch()
    context = ServerContext("job", {"clients": len(CLIENTS), **config})
    parts = ServerAppComponents(strategy=held.server(context), config=ServerConfig(ROUNDS))
    clients: dict[str, dict[str, Scalar]] = {client_id: {} for client_id in CLIENTS}
    simulate(
        held.client, clients, parts, RunOptions(job="job", observers=(watch,)), keep_clients=True
    )
    model = np.load(io.BytesIO(watch.model()))
    return bytes(model.tobytes())


@pytest.fixture
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., bytes]:
    def model(**config: Scalar) -> bytes:
        with monkeypatch.context() as patch:
            patch.setenv("FLMQ_TEST_MARKS", str(tmp_path_factory.getbasetemp()))
            return _undisturbed(tmp_path_factory.getbasetemp(), **config)

    return model


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _delete(url: str, *queues: str) -> None:
    with RabbitMQTransport(url) as witness:
        for queue in queues:
            witness.delete_queue(queue)


def _workers(processes: Processes) -> dict[str, subprocess.Popen[bytes]]:
    """One keeps its replies in memory, the other on its disk."""
    folder = f"--state-dir={processes.folder / 'state'}"
    return {"a": processes.client("a", "--once"), "b": processes.client("b", "--once", folder)}


def _held_in(
    processes: Processes, workers: dict[str, subprocess.Popen[bytes]], server_round: int
) -> None:
    for name, worker in workers.items():
        processes.wait_for_training(name, server_round, worker.pid)


def _trained_once(processes: Processes) -> bool:
    return all(
        len(processes.trainings(name, number)) == 1
        for name in CLIENTS
        for number in range(1, ROUNDS + 1)
    )


# -- the queue of replies is gone ------------------------------------------------------------


def test_replies_that_find_no_queue_count_when_their_server_is_started_again(
    processes: Processes, undisturbed: Callable[..., bytes]
) -> None:
    release = [processes.hold(name, 2) for name in CLIENTS]
    workers = _workers(processes)
    killed = processes.server("job")
    _held_in(processes, workers, 2)
    _kill(killed)
    _delete(processes.url, replies_queue("job"))
    for file in release:
        file.unlink()
    for name, worker in workers.items():
        kept = f"no queue for the reply of {name}: it is kept"
        eventually(lambda w=worker, k=kept: k in processes.output(w), SLOW)  # type: ignore[misc]
    processes.ends(processes.server("job"))
    assert processes.model("job") == undisturbed()
    assert _trained_once(processes)
    for worker in workers.values():
        processes.ends(worker)


def test_queues_that_are_deleted_while_replies_are_sent_cost_no_reply(
    processes: Processes, undisturbed: Callable[..., bytes]
) -> None:
    """Large ones, in chunks: their announcement, some chunks or all of them are lost."""
    release = [processes.hold(name, 2) for name in CLIENTS]
    workers = _workers(processes)
    server = processes.server("job", "--config=size=3000000")
    _held_in(processes, workers, 2)
    for file in release:
        file.unlink()
    queues = [f("job") for f in (replies_queue, uploads_queue, presence_queue)]
    for _ in range(3):
        _delete(processes.url, *queues, *map(client_queue, CLIENTS))
        time.sleep(0.2)
    assert server.wait(2 * SLOW) == 0, processes.output(server)
    assert processes.model("job") == undisturbed(size=3_000_000)
    assert _trained_once(processes)


# -- the broker's data is gone ---------------------------------------------------------------


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateNode]:
    """A node that the tests of this module kill, one after the other."""
    with PrivateNode(tmp_path_factory.mktemp("node") / "node") as started:
        yield started
        started.kill()


@pytest.fixture
def on_node(node: PrivateNode, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(node.url, tmp_path)
    yield made
    made.end()


def _wipe(node: PrivateNode) -> None:
    """Kill the broker, remove all that it had, and start it again: some 10 s."""
    node.kill()
    shutil.rmtree(node.folder / "data")
    node.start()


@pytest.mark.parametrize("first", ["server", "clients"])
def test_a_broker_that_lost_its_data_in_a_fit_costs_no_reply(
    node: PrivateNode, on_node: Processes, undisturbed: Callable[..., bytes], first: str
) -> None:
    """Whoever comes back first; a paused server comes last."""
    processes = on_node
    release = [processes.hold(name, 2) for name in CLIENTS]
    workers = _workers(processes)
    server = processes.server("job")
    _held_in(processes, workers, 2)
    if first == "clients":
        server.send_signal(signal.SIGSTOP)
    _wipe(node)
    for file in release:
        file.unlink()
    if first == "clients":
        eventually(lambda: KEPT in processes.output(workers["a"]), SLOW)
        server.send_signal(signal.SIGCONT)
    assert server.wait(2 * SLOW) == 0, processes.output(server)
    assert processes.model("job") == undisturbed()
    assert _trained_once(processes)


def test_a_resumed_round_waits_for_clients_that_come_back_without_a_queue(
    node: PrivateNode, on_node: Processes, undisturbed: Callable[..., bytes]
) -> None:
    """All data lost and all killed, the clients back long after the server: nobody is dropped."""
    processes = on_node
    for name in CLIENTS:
        processes.hold(name, 2)
    workers = _workers(processes)
    killed = processes.server("job")
    _held_in(processes, workers, 2)
    for process in (killed, *workers.values()):
        _kill(process)
    _wipe(node)
    for name in CLIENTS:
        (processes.marks / f"hold-{name}-2").unlink()
    server = processes.server("job")
    eventually(lambda: "resumed after round 1" in processes.output(server), SLOW)
    time.sleep(6.0)  # more than the 2.5 s after which a server has heard all that are there
    for name in CLIENTS:
        processes.client(name, "--once")
    assert server.wait(2 * SLOW) == 0, processes.output(server)
    assert processes.model("job") == undisturbed()
    assert "unroutable" not in processes.output(server)


# -- the server has lost what it knew --------------------------------------------------------


def test_a_runs_folder_may_be_put_back_from_an_earlier_copy(
    processes: Processes, undisturbed: Callable[..., bytes]
) -> None:
    """Of round 1, in round 3: the clients hold rounds 1 and 2 for settled, and do them anew."""
    first = [processes.hold(name, 1) for name in CLIENTS]
    third = [processes.hold(name, 3) for name in CLIENTS]
    workers = _workers(processes)
    server = processes.server("job")
    _held_in(processes, workers, 1)
    _kill(server)
    run, copy = processes.folder / "runs" / "job", processes.folder / "copy"
    shutil.copytree(run, copy)
    for file in first:
        file.unlink()
    server = processes.server("job")
    _held_in(processes, workers, 3)
    third[0].unlink()  # one reply of the third round is there
    _kill(server)
    shutil.rmtree(run)
    copy.rename(run)
    third[1].unlink()
    server = processes.server("job")
    said = processes.ends(server)
    assert processes.model("job") == undisturbed()
    log = (run / "server.log").read_text(encoding="utf-8")
    assert (said + log).count(ANEW) >= 4  # two clients, two rounds
    for worker in workers.values():
        processes.ends(worker)


def test_a_journal_that_lost_its_last_transactions_loses_no_run(
    processes: Processes, undisturbed: Callable[..., bytes]
) -> None:
    """SQLite recovers without a word: the reply of a client that holds it for settled is gone."""
    release = processes.hold("b", 3)
    workers = _workers(processes)
    server = processes.server("job")
    processes.wait_for_training("b", 3, workers["b"].pid)
    run = processes.folder / "runs" / "job"
    log = run / "journal.db-wal"
    eventually(lambda: bool(processes.trainings("a", 3)), SLOW)
    time.sleep(1.0)  # the reply of a is journalled, and its receipt there
    _kill(server)
    size = log.stat().st_size
    assert size > 0
    with log.open("r+b") as file:
        file.truncate(size // 2)
    release.unlink()
    processes.ends(processes.server("job"))
    assert processes.model("job") == undisturbed()


def test_a_strategys_own_question_is_not_asked_again_where_its_server_was_killed(
    processes: Processes, undisturbed: Callable[..., bytes]
) -> None:
    (processes.marks / "die-2").touch()
    workers = _workers(processes)
    killed = processes.server("job", "--config=asks=1")
    assert killed.wait(SLOW) == -signal.SIGKILL, processes.output(killed)
    said = processes.ends(processes.server("job", "--config=asks=1"))
    assert processes.model("job") == undisturbed(asks=1)
    log = (processes.folder / "runs" / "job" / "server.log").read_text(encoding="utf-8")
    assert ANEW not in said + log
    for worker in workers.values():
        processes.ends(worker)
