"""SIGTERM, as service managers send it: what is at work is finished, or left; no bit changes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from flmq.client.client_ids import client_ids_of
from tests.end_to_end.test_many_clients import run_server, serve
from tests.end_to_end.test_many_clients import undisturbed as undisturbed_many
from tests.end_to_end.test_processes import CLIENTS, SLOW, Processes, undisturbed
from tests.proxy import Proxy
from tests.transport.rigs import eventually

__all__ = ["undisturbed"]

DRAINING = "no task is begun any more"
_KUBERNETES = 30.0
"""Seconds from SIGTERM to SIGKILL."""
_SAME = 1.1
"""Seconds after which a second SIGTERM is another one."""


@pytest.fixture
def processes(broker_url: str, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(broker_url, tmp_path)
    yield made
    made.end()


def _training(
    processes: Processes, *options: str, **of_one: str
) -> tuple[subprocess.Popen[bytes], dict[str, subprocess.Popen[bytes]]]:
    """Clients that both train in round 2: the first keeps what it has in a folder."""
    for name in CLIENTS:
        processes.hold(name, 2)
    started = {
        name: processes.client(
            name, *_folder(processes, name), *options, of_one.get(name, "--max-deaths=3")
        )
        for name in CLIENTS
    }
    server = processes.server("job")
    for name in CLIENTS:
        processes.wait_for_training(name, 2, started[name].pid)
    return server, started


def _folder(processes: Processes, name: str) -> list[str]:
    return [f"--state-dir={processes.folder / 'state'}"] if name == CLIENTS[0] else []


def _release(processes: Processes) -> None:
    for name in CLIENTS:
        (processes.marks / f"hold-{name}-2").unlink()


def _drains(processes: Processes, client: subprocess.Popen[bytes]) -> None:
    client.send_signal(signal.SIGTERM)
    eventually(lambda: DRAINING in processes.output(client), SLOW)


def test_what_is_at_work_is_finished_and_counts(processes: Processes, undisturbed: bytes) -> None:
    server, first = _training(processes, "--grace=60")
    for client in first.values():
        _drains(processes, client)
    eventually(lambda: processes.output(server).count("said bye") >= len(CLIENTS), SLOW)
    assert all(client.poll() is None for client in first.values())
    _release(processes)
    for client in first.values():
        said = processes.ends(client, 143)
        assert "flmq: stopped: " in said
        assert "Traceback" not in said
    second = {name: processes.client(name, *_folder(processes, name)) for name in CLIENTS}
    processes.ends(server)
    assert processes.model("job") == undisturbed
    for name in CLIENTS:
        assert processes.trainings(name, 2) == {first[name].pid}
        assert processes.trainings(name, 3) == {second[name].pid}
        second[name].terminate()  # idle: at once
        processes.ends(second[name], 143)


def _grace_is_over(client: subprocess.Popen[bytes]) -> int:
    return 143


def _second_sigterm(client: subprocess.Popen[bytes]) -> int:
    time.sleep(_SAME)
    client.terminate()
    return 143


def _ctrl_c(client: subprocess.Popen[bytes]) -> int:
    client.send_signal(signal.SIGINT)
    return 130


def _kill(client: subprocess.Popen[bytes]) -> int:
    client.kill()
    return -signal.SIGKILL


@pytest.mark.parametrize(
    ("ends", "grace"),
    [
        ((_grace_is_over, _kill), 2),
        pytest.param((_second_sigterm, _ctrl_c), 60, marks=pytest.mark.slow),
    ],
    ids=["grace-and-killed", "signals"],
)
def test_what_takes_too_long_is_left_and_comes_back(
    processes: Processes,
    undisturbed: bytes,
    ends: tuple[Callable[[subprocess.Popen[bytes]], int], ...],
    grace: float,
) -> None:
    """Who was left in order did not die in its task: one death would give it up."""
    deaths = {
        name: f"--max-deaths={2 if end is _kill else 1}"
        for name, end in zip(CLIENTS, ends, strict=True)
    }
    server, first = _training(processes, f"--grace={grace}", **deaths)
    for client, end in zip(first.values(), ends, strict=True):
        _drains(processes, client)
        said = processes.ends(client, end(client))
        assert "Traceback" not in said
        assert "by force" not in said
    second = {
        name: processes.client(name, *_folder(processes, name), deaths[name]) for name in CLIENTS
    }
    for name in CLIENTS:
        processes.wait_for_training(name, 2, second[name].pid)
    _release(processes)
    processes.ends(server)
    assert processes.model("job") == undisturbed
    for name in CLIENTS:
        assert processes.trainings(name, 2) == {first[name].pid, second[name].pid}


def test_a_command_of_several_processes_passes_it_on(processes: Processes) -> None:
    """To the whole group, as systemd sends it by default: theirs and the one passed on are one."""
    ids = client_ids_of("c-{0..3}")
    parent = serve(processes, "c-{0..3}", "--processes=2", "--grace=60")
    hold = [processes.hold(name, 1) for name in ids[:2]]
    server = run_server(processes, len(ids), rounds=1)
    eventually(lambda: all(processes.trainings(name, 1) for name in ids), SLOW)
    children = [pid for name in ids[:2] for pid in processes.trainings(name, 1)]
    for pid in (*children, parent.pid):
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: processes.output(parent).count(DRAINING) == 2, SLOW)
    assert parent.poll() is None
    for file in hold:
        file.unlink()
    said = processes.ends(parent, 143)
    assert "Killed" not in said
    processes.ends(server)
    assert processes.model("job") == undisturbed_many(ids, 1)
    assert all(len(processes.trainings(name, 1)) == 1 for name in ids)


def test_ctrl_c_leaves_the_tasks_of_several_processes_at_once(processes: Processes) -> None:
    """Those of every thread: nobody died in them, and one death would give them up."""
    ids = client_ids_of("c-{0..3}")
    many = ("--processes=2", "--grace=60", "--max-deaths=1", "--concurrency=2", "--state-dir=state")
    parent = serve(processes, "c-{0..3}", *many)
    hold = [processes.hold(name, 1) for name in ids]
    server = run_server(processes, len(ids), rounds=1)
    eventually(lambda: all(processes.trainings(name, 1) for name in ids), SLOW)
    parent.send_signal(signal.SIGINT)
    assert DRAINING not in processes.ends(parent, 130)
    second = serve(processes, "c-{0..3}", *many)
    eventually(lambda: all(len(processes.trainings(name, 1)) == 2 for name in ids), SLOW)
    for file in hold:
        file.unlink()
    processes.ends(server)
    assert processes.model("job") == undisturbed_many(ids, 1)
    second.terminate()
    processes.ends(second, 143)


def test_a_standby_takes_over_from_a_server_that_is_told_to_end(
    processes: Processes, undisturbed: bytes
) -> None:
    server, clients = _training(processes)
    standby = processes.server("job")
    eventually(lambda: "standing by" in processes.output(standby), SLOW)
    server.terminate()
    assert "Traceback" not in processes.ends(server, 143)
    eventually(lambda: "takes over" in processes.output(standby), SLOW)
    _release(processes)
    processes.ends(standby)
    assert processes.model("job") == undisturbed
    for name in CLIENTS:
        assert processes.trainings(name, 2) == {clients[name].pid}


@pytest.mark.slow
def test_who_is_told_to_end_while_the_broker_is_away_ends_all_the_same(
    broker_url: str, tmp_path: Path
) -> None:
    """Client, server and aggregator; in the seconds that Kubernetes gives."""
    where = urlsplit(broker_url)
    with Proxy(where.hostname or "", where.port or 0) as proxy:
        url = urlunsplit(
            where._replace(netloc=f"{where.username}:{where.password}@127.0.0.1:{proxy.port}")
        )
        processes = Processes(url, tmp_path)
        try:
            aggregator = processes.run("aggregate")
            server, clients = _training(processes, "--grace=2")
            proxy.refuse()
            _release(processes)
            everybody = [*clients.values(), server, aggregator]
            for process in everybody:
                process.terminate()
            begun = time.monotonic()
            for process in everybody:
                processes.ends(process, 143)
            assert time.monotonic() - begun < _KUBERNETES
            proxy.accept()
            again = [processes.client(name, *_folder(processes, name)) for name in CLIENTS]
            again.append(processes.run("aggregate"))
            processes.ends(processes.server("job"))
            for process in again:
                process.terminate()
                processes.ends(process, 143)
        finally:
            processes.end()
