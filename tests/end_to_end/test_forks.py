"""Children that user code forks hold nothing of their parent's: the killed are replaced at once."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flmq.common.locks import is_held, process_lock
from flmq.transport import client_topology, federation_topology
from flmq.transport.rabbitmq import RabbitMQTransport
from flmq.transport.rabbitmq.forks import descriptors
from tests.end_to_end.test_processes import SLOW, Processes
from tests.transport.rigs import eventually

SOON = 30.0
"""Seconds for a start on a busy machine; the broker notices a silent peer after 60."""
APP = "tests.end_to_end.forking_app"


@pytest.fixture
def processes(broker_url: str, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(broker_url, tmp_path)
    yield made
    made.end()
    for child in made.marks.glob("child-of-*"):
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.kill(int(child.read_text()), signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("who", ["client", "server"])
def test_who_is_killed_while_its_children_live_is_replaced_at_once(
    processes: Processes, who: str
) -> None:
    commands = {
        "client": ("client", f"{APP}:client", "--client-id=a", "--once", "--standby"),
        "server": ("server", f"{APP}:server", "--job=forks"),
    }
    hold = processes.marks / f"hold-{who}"
    hold.touch()
    running = {name: processes.run(*command) for name, command in commands.items()}
    child_file = processes.marks / f"child-of-{who}"
    eventually(lambda: child_file.exists() and child_file.read_text() != "", SLOW)
    child = int(child_file.read_text())
    running[who].kill()
    running[who].wait()
    started = time.monotonic()
    again = running[who] = processes.run(*commands[who])
    eventually(lambda: (processes.marks / f"{who}-{again.pid}").exists(), SLOW)
    seconds = time.monotonic() - started
    assert _is_alive(child), "the children are to outlive the start"
    assert seconds < SOON, processes.output(again)
    hold.unlink()
    for process in running.values():
        processes.ends(process)


def test_a_child_has_no_socket_of_its_parents(broker_url: str) -> None:
    """This pika is one whose sockets we find; connections that are closed are no hindrance."""
    RabbitMQTransport(broker_url).close()
    transport = RabbitMQTransport(broker_url)
    transport.declare(federation_topology() + client_topology("a"))
    transport.publisher()
    connections = [transport._connection, *transport._connections]
    watched = [n for c in connections for n in descriptors(c._loop)]
    assert len(watched) == 2 * len(connections), "a loop watches its socket and what wakes it"
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        left = [n for n in watched if "socket" in str(Path(f"/proc/self/fd/{n}").readlink())]
        os.write(write, f"{left}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 1000) == b"[]"
    os.close(read)
    os.close(write)
    transport.declare(client_topology("b"))  # the parent's own are as they were
    assert transport.inspect_queue("flmq.client.b") is not None
    transport.close()


def test_a_child_holds_no_lock_of_its_parents(tmp_path: Path) -> None:
    """The library's doing: of the run, the node and the models that workers share."""
    path = tmp_path / "some.lock"
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        lock = process_lock(path)
        lock.acquire()
        child = os.fork()
        if child == 0:
            time.sleep(60.0)
            os._exit(0)
        os.write(write, str(child).encode())
        os._exit(0)
    os.waitpid(parent, 0)
    child = int(os.read(read, 100))
    free = not is_held(path)
    os.kill(child, signal.SIGKILL)
    os.close(read)
    os.close(write)
    assert free
