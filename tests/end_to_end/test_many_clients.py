"""Many clients of one process, or of several, over a real broker: killed, and in the way."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from flmq.broker.node import PrivateNode
from flmq.client.client_ids import client_ids_of, clients_of
from flmq.client.options import WorkerOptions
from flmq.common import Config, Metrics, NDArray, NDArrays
from flmq.observe.events import ClientOutcome, RoundCounts
from flmq.server import ServerConfig
from flmq.server.components import ServerAppComponents
from flmq.server.context import ServerContext
from flmq.server.options import RunOptions
from flmq.simulation.app import simulate
from flmq.transport import client_queue
from flmq.transport.rabbitmq import RabbitMQTransport
from tests.end_to_end import held
from tests.end_to_end.federation import Federation, Nudge, Watch, fed_avg
from tests.end_to_end.test_processes import SLOW, Processes
from tests.transport.rigs import PATIENCE, eventually

APP = "tests.end_to_end.held"
ROUNDS = 2


@pytest.fixture
def processes(broker_url: str, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(broker_url, tmp_path)
    yield made
    made.end()


def undisturbed(ids: Sequence[str], rounds: int = ROUNDS) -> bytes:
    """The model of the run that nobody disturbs."""
    watch = Watch()
    context = ServerContext("job", {"clients": len(ids)})
    parts = ServerAppComponents(strategy=held.server(context), config=ServerConfig(rounds))
    options = RunOptions(job="job", observers=(watch,))
    simulate(held.client, clients_of(ids, {}), parts, options, keep_clients=True)
    tensor: NDArray = np.load(io.BytesIO(watch.model()))
    return tensor.tobytes()


def serve(processes: Processes, ids: str, *options: str) -> subprocess.Popen[bytes]:
    return processes.run("client", f"{APP}:client", f"--client-ids={ids}", *options)


def run_server(processes: Processes, clients: int, rounds: int = ROUNDS) -> subprocess.Popen[bytes]:
    return processes.run(
        *("server", f"{APP}:server", "--job=job", f"--rounds={rounds}"),
        f"--config=clients={clients}",
    )


@pytest.mark.parametrize(
    ("count", "state"),
    [
        (40, True),
        pytest.param(200, True, marks=pytest.mark.slow),
        pytest.param(50, False, marks=pytest.mark.slow),
    ],
)
def test_a_process_of_many_clients_is_killed_in_mid_round_and_no_bit_changes(
    processes: Processes, count: int, state: bool
) -> None:
    """What was finished is not trained again; with a folder, and without."""
    pattern = f"c-{{000..{count - 1}}}"
    ids = client_ids_of(pattern)
    options = ["--once", "--concurrency=4", *(["--state-dir=state"] if state else [])]
    release = processes.hold("c-007", 2)
    first = serve(processes, pattern, *options)
    server = run_server(processes, len(ids))
    eventually(lambda: all(processes.trainings(each, 2) for each in ids), SLOW)
    first.kill()
    first.wait()
    second = serve(processes, pattern, *options)
    processes.wait_for_training("c-007", 2, second.pid)
    release.unlink()
    processes.ends(server)
    said = processes.ends(second)
    assert "Traceback" not in said
    assert processes.model("job") == undisturbed(ids)
    twice = {each for each in ids if len(processes.trainings(each, 2)) > 1}
    assert "c-007" in twice
    assert len(twice) <= 4  # those that were being trained, one a thread
    assert all(processes.trainings(each, 1) == {first.pid} for each in ids)


def test_a_process_with_an_id_of_another_one_names_it(processes: Processes) -> None:
    first = serve(processes, "c-{0..4}")
    with RabbitMQTransport(processes.url) as witness:

        def is_served() -> bool:
            info = witness.inspect_queue(client_queue("c-4"))
            return info is not None and info.consumers == 1

        eventually(is_served, SLOW)
    said = processes.ends(serve(processes, "c-{4..9}", "--no-standby"), 2)
    assert "ClientIdInUse" in said
    assert "c-4" in said
    waits = serve(processes, "c-{4..9}")
    eventually(lambda: "standing by, all 6 of us" in processes.output(waits), SLOW)
    first.terminate()
    processes.ends(first, 143)
    server = processes.run(
        *("server", f"{APP}:server", "--job=job", "--rounds=1", "--config=clients=6")
    )
    processes.ends(server)
    waits.terminate()
    assert "c-{4..9}" in processes.ends(waits, 143)


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in found.split()]


def _is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split()[2]
    except OSError:
        return False


def test_clients_divided_among_processes_and_one_of_these_dies(processes: Processes) -> None:
    ids = client_ids_of("c-{0..5}")
    parent = serve(processes, "c-{0..5}", "--processes=2", "--state-dir=state")
    release = processes.hold("c-1", 1)
    server = run_server(processes, len(ids))
    eventually(lambda: bool(processes.trainings("c-1", 1)), SLOW)
    [victim] = processes.trainings("c-1", 1)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: "ended by signal 9" in processes.output(parent), SLOW)
    said = processes.output(parent)
    assert "process 2 ended by signal 9, Killed: its tasks wait for c-1, c-3, c-5." in said
    [command] = re.findall(r"start it with: flmq (.*--share=2/2)", said)
    assert "--processes=2" in command  # and after it --processes=1, which counts
    second = processes.run(*command.replace("'", "").split())
    processes.wait_for_training("c-1", 1, second.pid)
    release.unlink()
    processes.ends(server)
    assert processes.model("job") == undisturbed(ids)
    [other] = _children(parent.pid)
    parent.terminate()
    processes.ends(parent, 143)
    eventually(lambda: not _is_alive(other), SLOW)
    second.terminate()
    processes.ends(second, 143)


def test_a_killed_parent_takes_its_processes_along(processes: Processes) -> None:
    parent = serve(processes, "c-{0..3}", "--processes=2")
    eventually(lambda: processes.output(parent).count("serve the jobs of") == 2, SLOW)
    children = _children(parent.pid)
    assert len(children) == 2
    parent.kill()
    eventually(lambda: not any(_is_alive(child) for child in children), SLOW)


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_many_clients_of_one_process_do_a_round(
    private_node: PrivateNode, tmp_path: Path, count: int
) -> None:
    """Over three connections, as one client has."""
    processes = Processes(private_node.url, tmp_path)
    try:
        pattern = f"c-{{0..{count - 1}}}"
        ids = client_ids_of(pattern)
        release = processes.hold("c-7", 1)
        clients = serve(processes, pattern, "--once", "--max-deaths=0")
        server = run_server(processes, len(ids), rounds=1)
        eventually(lambda: bool(list(processes.marks.glob("*-1-*"))), 3 * SLOW)
        # Three of the server's, and three of the clients'.
        assert private_node.evaluate("length(rabbit_networking:connections()).") == "6"
        release.unlink()
        assert server.wait(3 * SLOW) == 0, processes.output(server)
        assert clients.wait(SLOW) == 0, processes.output(clients)
        assert processes.model("job") == undisturbed(ids, 1)
    finally:
        processes.end()


def test_a_client_that_takes_long_does_not_hold_up_the_others(federation: Federation) -> None:
    names, go_on = [f"c{number}" for number in range(20)], threading.Event()

    class Slow(Nudge):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            if self.client_id == "c7":
                assert go_on.wait(PATIENCE)
            return super().fit(parameters, config)

    federation.workers["many"] = federation.worker(
        {name: {} for name in names},
        lambda context: Slow(context.client_id),
        WorkerOptions(heartbeat=1.0, threads=2, once=True),
    )
    server = federation.run(fed_avg(20))
    eventually(lambda: len(server.watch.of(ClientOutcome)) == 19, SLOW)
    assert all(each.client_id != "c7" for each in server.watch.of(ClientOutcome))
    go_on.set()
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=20, accepted=20)
    federation.workers["many"].done.result(SLOW)
    with federation.rig.witness() as witness:
        left = [witness.inspect_queue(client_queue(name)) for name in names]
    # All of them have been told that the job is over, though the first was enough to stop.
    assert [info.messages_ready for info in left if info is not None] == [0] * 20
