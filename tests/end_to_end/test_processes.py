"""Real processes, from the command line, over a real broker: killed, stopped, and started again."""

from __future__ import annotations

import io
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from flmq.common import NDArray, Scalar
from flmq.common.urls import parse_broker_url
from flmq.server import ServerConfig
from flmq.server.components import ServerAppComponents
from flmq.server.context import ServerContext
from flmq.server.options import RunOptions
from flmq.simulation.app import simulate
from flmq.transport import client_queue, lock_queue, presence_queue, replies_queue
from flmq.transport.rabbitmq import RabbitMQTransport
from tests.conftest import SessionBroker
from tests.end_to_end import held
from tests.end_to_end.federation import Watch
from tests.processes import Commands
from tests.transport.rigs import eventually

CLIENTS = ("a", "b")
ROUNDS = 3
SLOW = 60.0
"""Seconds for what a busy machine does in two: starting Python processes."""


class Processes(Commands):
    """Servers and clients of `held`."""

    def __init__(self, url: str, folder: Path) -> None:
        self.marks = folder / "marks"
        self.marks.mkdir()
        super().__init__(url, folder, FLMQ_TEST_MARKS=str(self.marks))

    def client(self, client_id: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker."""
        name = f"--client-id={client_id}"
        return self.run("client", "tests.end_to_end.held:client", name, *options)

    def server(self, job: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a server."""
        return self.run(
            "server",
            "tests.end_to_end.held:server",
            f"--job={job}",
            f"--rounds={ROUNDS}",
            f"--config=clients={len(CLIENTS)}",
            *options,
        )

    def ends(self, process: subprocess.Popen[bytes], status: int = 0) -> str:
        """Wait for its end, and its output."""
        assert process.wait(SLOW) == status, self.output(process)
        return self.output(process)

    def hold(self, client_id: str, server_round: int) -> Path:
        """Have a client stay in its training of a round until the file is gone."""
        file = self.marks / f"hold-{client_id}-{server_round}"
        file.touch()
        return file

    def trainings(self, client_id: str, server_round: int) -> set[int]:
        """Ids of the processes that began to train for a client in a round."""
        found = self.marks.glob(f"{client_id}-{server_round}-*")
        return {int(file.name.rpartition("-")[2]) for file in found}

    def wait_for_training(self, client_id: str, server_round: int, pid: int) -> None:
        """Wait until a process trains."""
        eventually(lambda: pid in self.trainings(client_id, server_round), SLOW)

    def model(self, job: str) -> bytes:
        """The final model of a job."""
        with np.load(self.folder / "runs" / job / "model.npz") as file:
            return b"".join(file[name].tobytes() for name in file.files)


@pytest.fixture
def processes(broker_url: str, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(broker_url, tmp_path)
    yield made
    made.end()


@pytest.fixture(scope="module")
def undisturbed() -> bytes:
    """The model of the run that nobody disturbs."""
    watch = Watch()
    context = ServerContext("job", {"clients": len(CLIENTS)})
    parts = ServerAppComponents(strategy=held.server(context), config=ServerConfig(ROUNDS))
    clients: dict[str, dict[str, Scalar]] = {client_id: {} for client_id in CLIENTS}
    options = RunOptions(job="job", observers=(watch,))
    simulate(held.client, clients, parts, options, keep_clients=True)
    tensor: NDArray = np.load(io.BytesIO(watch.model()))
    return tensor.tobytes()


def test_a_client_killed_in_its_training_trains_again_and_no_bit_changes(
    processes: Processes, undisturbed: bytes
) -> None:
    """Once with a folder of its own, once without: the task is in its spool, or at the broker."""
    release = {name: processes.hold(name, 2) for name in CLIENTS}
    with_folder = f"--state-dir={processes.folder / 'state'}"
    options = {"a": ("--once",), "b": ("--once", with_folder)}
    first = {name: processes.client(name, *options[name]) for name in CLIENTS}
    server = processes.server("job")
    for name in CLIENTS:
        processes.wait_for_training(name, 2, first[name].pid)
        first[name].kill()
        first[name].wait()
    second = {name: processes.client(name, *options[name]) for name in CLIENTS}
    for name in CLIENTS:
        processes.wait_for_training(name, 2, second[name].pid)
        release[name].unlink()
    processes.ends(server)
    assert processes.model("job") == undisturbed
    for name in CLIENTS:
        said = processes.ends(second[name])
        assert "Traceback" not in said
        assert processes.trainings(name, 1) == {first[name].pid}
        assert processes.trainings(name, 2) == {first[name].pid, second[name].pid}
        assert processes.trainings(name, 3) == {second[name].pid}
    _assert_no_queue_of("job", processes.url)


def test_workers_outlive_a_killed_server_and_serve_the_next_job(
    processes: Processes, undisturbed: bytes
) -> None:
    release = processes.hold("a", 2)
    workers = {name: processes.client(name) for name in CLIENTS}
    killed = processes.server("killed")
    processes.wait_for_training("a", 2, workers["a"].pid)
    killed.kill()
    killed.wait()
    release.unlink()  # its reply finds the queue of a job that nobody runs
    server = processes.server("next")
    processes.ends(server)
    assert processes.model("next") == undisturbed
    # Stopped as a service manager stops it, a worker takes its leave.
    for worker in workers.values():
        worker.terminate()
    for worker in workers.values():
        said = processes.ends(worker, 143)
        assert "Traceback" not in said
        assert "flmq: stopped: " in said
    with RabbitMQTransport(processes.url) as witness:
        for name in CLIENTS:
            info = witness.inspect_queue(client_queue(name))
            assert info is not None
            assert info.consumers == 0
    _assert_no_queue_of("next", processes.url)


def test_a_stopped_server_says_so_and_goes_on_when_it_is_started_again(
    processes: Processes, undisturbed: bytes
) -> None:
    release = processes.hold("a", 2)
    workers = {name: processes.client(name, "--once") for name in CLIENTS}
    stopped = processes.server("job")
    processes.wait_for_training("a", 2, workers["a"].pid)
    stopped.send_signal(signal.SIGTERM)
    said = processes.ends(stopped, 143)
    assert "Traceback" not in said
    assert "flmq: stopped: job job is not over" in said
    assert said.rstrip().endswith(
        "Go on with: flmq server tests.end_to_end.held:server --job=job --rounds=3 "
        "--config=clients=2"
    )
    release.unlink()
    processes.ends(processes.server("job"))
    assert processes.model("job") == undisturbed
    for worker in workers.values():
        processes.ends(worker)
    _assert_no_queue_of("job", processes.url)


def test_connections_closed_by_the_broker_are_a_line_of_log_each(
    processes: Processes, undisturbed: bytes, broker_node: SessionBroker
) -> None:
    release = processes.hold("a", 2)
    workers = {name: processes.client(name, "--once") for name in CLIENTS}
    server = processes.server("job")
    processes.wait_for_training("a", 2, workers["a"].pid)
    closed = _close_all_connections(broker_node, processes.url)
    assert closed >= 9  # three for each process
    release.unlink()
    said = [processes.ends(server), *(processes.ends(worker) for worker in workers.values())]
    assert processes.model("job") == undisturbed
    for text in said:
        assert "Traceback" not in text
        assert text.count("connection lost") <= 3
    assert "connection lost" in said[1]


def test_a_run_in_which_nobody_can_train_ends_with_a_status_of_its_own(
    processes: Processes,
) -> None:
    workers = [
        processes.run("client", "tests.end_to_end.held:broken", f"--client-id={name}", "--once")
        for name in CLIENTS
    ]
    said = processes.ends(processes.server("job"), 7)
    assert said.splitlines()[-1].startswith(
        "flmq: ModelUnchanged: job job: 3 rounds are over, and none changed the model; the last: "
    )
    again = processes.ends(processes.server("job"), 7)  # its result is what it was
    assert "ModelUnchanged" in again
    for worker in workers:
        processes.ends(worker)


def test_an_id_and_a_job_in_use_are_free_once_their_holder_is_killed(
    processes: Processes, undisturbed: bytes
) -> None:
    release = processes.hold("a", 1)
    first = {name: processes.client(name) for name in CLIENTS}
    server = processes.server("job")
    processes.wait_for_training("a", 1, first["a"].pid)
    refused = processes.client("a", "--no-standby"), processes.server("job", "--no-standby")
    assert "client id 'a' is in use by another live process" in processes.ends(refused[0], 2)
    assert "job 'job' is run by another live server" in processes.ends(refused[1], 2)
    for process in (first["a"], server):
        process.kill()
        process.wait()
    second = processes.client("a", "--no-standby")
    again = processes.server("job", "--no-standby")
    processes.wait_for_training("a", 1, second.pid)
    release.unlink()
    processes.ends(again)
    assert processes.model("job") == undisturbed


def test_no_password_is_in_an_argument_an_output_or_a_record(processes: Processes) -> None:
    password = parse_broker_url(processes.url).password
    assert len(password) > 5
    release = processes.hold("a", 1)
    workers = [processes.client(name, "--once") for name in CLIENTS]
    server = processes.server("job")
    processes.wait_for_training("a", 1, workers[0].pid)
    for process in (server, *workers):
        for name in ("cmdline", "comm"):
            assert password.encode() not in Path(f"/proc/{process.pid}/{name}").read_bytes()
    release.unlink()
    for process in (server, *workers):
        assert password not in processes.ends(process)
    files = [file for file in processes.folder.rglob("*") if file.is_file()]
    assert len(files) > 5
    for file in files:
        assert password.encode() not in file.read_bytes(), file


def _close_all_connections(broker: SessionBroker, url: str) -> int:
    """Close every connection to a virtual host from the broker's side; how many there were."""
    vhost = quote(parse_broker_url(url).vhost, safe="")
    found: list[dict[str, str]] = []

    def all_are_listed() -> bool:  # the management's statistics are some seconds late
        found[:] = broker.management.call("GET", f"/api/vhosts/{vhost}/connections")
        return len(found) >= 9

    eventually(all_are_listed, SLOW)
    for connection in found:
        broker.management.call("DELETE", f"/api/connections/{quote(connection['name'], safe='')}")
    return len(found)


def _assert_no_queue_of(job: str, url: str) -> None:
    with RabbitMQTransport(url, name="witness") as witness:
        for queue in (replies_queue(job), presence_queue(job), lock_queue(job)):
            eventually(lambda queue=queue: witness.inspect_queue(queue) is None)  # type: ignore[misc]
