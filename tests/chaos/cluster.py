"""A RabbitMQ cluster of three nodes on this machine, one address before them.

Nodes form the cluster by themselves (RabbitMQ, "Cluster Formation": classic config), share cookie
and epmd, and listen on loopback alone. Some 25 s to start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from flmq.broker import processes, watchdog
from flmq.broker.identity import NodeIdentity, new_identity
from flmq.broker.installed import find_programs
from flmq.broker.layout import NodeFolder, node_environment
from flmq.broker.ports import LOOPBACK, is_free
from flmq.broker.probe import ask_broker
from flmq.common.errors import BrokerError
from tests.chaos.stage import queue_depths, through
from tests.proxy import Proxy

__all__ = ["Cluster"]

_NODES = 3
_START_SECONDS = 120.0
_POLL = 0.1


@dataclasses.dataclass(slots=True)
class _Node:
    identity: NodeIdentity
    folder: NodeFolder
    pid: int | None = None


class Cluster:
    """Three nodes, and a proxy that leads to one that is alive. A context manager."""

    def __init__(self) -> None:
        """Prepare."""
        self._folder = Path(tempfile.mkdtemp(prefix="flmq-cluster-"))
        self._programs = find_programs()
        first = new_identity()
        self._nodes = [self._node(first, number) for number in range(1, _NODES + 1)]

    def __enter__(self) -> Cluster:
        self._set_watchdog()
        try:
            self._start_epmd()
            for number in range(_NODES):
                self.start(number)
        except BaseException:
            self._end()
            raise
        self.proxy = Proxy(LOOPBACK, self._nodes[0].identity.ports.amqp)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.proxy.__exit__()
        self._end()

    def start(self, number: int) -> None:
        """Start a node, anew or again, and wait until it takes logins."""
        node = self._nodes[number]
        env = node_environment(node.identity, node.folder)
        argv = [str(self._programs.server)]
        node.pid = processes.spawn(argv, env, self._folder, node.folder.output)
        deadline = time.monotonic() + _START_SECONDS
        while not self._takes_login(node):
            alive = processes.belongs(node.pid, self._folder)
            if not alive or time.monotonic() > deadline:
                raise AssertionError(node.folder.log.read_text("utf-8", "replace")[-2000:])
            time.sleep(_POLL)

    def kill(self, number: int) -> None:
        """Kill a node as a crash would, and have the proxy lead to another one."""
        node = self._nodes[number]
        assert node.pid is not None
        os.kill(node.pid, signal.SIGKILL)
        processes.wait_gone(node.pid, timeout=10.0)
        node.pid = None
        survivor = next(one for one in self._nodes if one.pid is not None)
        self.proxy.retarget(LOOPBACK, survivor.identity.ports.amqp)

    def leader(self, queue: str) -> int:
        """Number of the node that leads a quorum queue."""
        asked = next(number for number, node in enumerate(self._nodes) if node.pid is not None)
        vhost = self._nodes[0].identity.vhost
        listing = self.ctl(asked, "list_queues", "-p", vhost, "name", "leader")
        leaders = dict(line.split("\t") for line in listing.splitlines() if "\t" in line)
        names = [node.identity.name for node in self._nodes]
        return names.index(leaders[queue])

    def ctl(self, number: int, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on a node."""
        node = self._nodes[number]
        env = {**node_environment(node.identity, node.folder), processes.MARK: str(self._folder)}
        command = [str(self._programs.ctl), "-q", "-n", node.identity.name, *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-600:]
        return done.stdout

    # -- as a stage for one run --------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where processes go: through the proxy."""
        return through(self.proxy.port, self._nodes[0].identity.url)

    def set(self) -> None:
        """Be ready: a cluster is for one run."""

    def placed(self, member: str, argv: Sequence[str]) -> Sequence[str]:
        """The command of a process: all share one machine."""
        return argv

    def calm(self) -> None:
        """Have every node up."""
        for number, node in enumerate(self._nodes):
            if node.pid is None:
                self.start(number)

    def clear(self) -> None:
        """Leave the rest to the cluster's end."""

    def depths(self, names: Sequence[str]) -> dict[str, int]:
        """Messages that are ready in each of these queues that exists."""
        return queue_depths(self._nodes[0].identity.url.full, names)

    # -- within ------------------------------------------------------------------------------

    def _node(self, first: NodeIdentity, number: int) -> _Node:
        own = new_identity()
        ports = dataclasses.replace(own.ports, epmd=first.ports.epmd)
        identity = dataclasses.replace(
            first, name=f"n{number}-{first.name}", ports=first.ports if number == 1 else ports
        )
        folder = NodeFolder(self._folder / f"node-{number}")
        folder.path.mkdir(mode=0o700)
        members = {
            f"cluster_formation.classic_config.nodes.{each}": f"n{each}-{first.name}"
            for each in range(1, _NODES + 1)
        }
        settings = {
            "cluster_formation.peer_discovery_backend": "classic_config",
            "cluster_partition_handling": "pause_minority",
            **members,
        }
        folder.write(identity, settings, plugins=())
        return _Node(identity, folder)

    def _set_watchdog(self) -> None:
        self._guard = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", watchdog.__file__),
                *(str(os.getpid()), str(self._folder), "remove"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def _start_epmd(self) -> None:
        """One for all nodes, which outlives each of them."""
        node = self._nodes[0]
        env, port = node_environment(node.identity, node.folder), node.identity.ports.epmd
        argv = [str(self._programs.epmd), "-port", str(port), "-address", LOOPBACK]
        processes.spawn(argv, env, self._folder, self._folder / "epmd.log")
        deadline = time.monotonic() + 10.0
        while is_free(port):
            assert time.monotonic() < deadline, "epmd did not start"
            time.sleep(_POLL)

    def _takes_login(self, node: _Node) -> bool:
        with contextlib.suppress(OSError, BrokerError):
            ask_broker(node.identity.url)
            return True
        return False

    def _end(self) -> None:
        left = processes.end_all(self._folder)
        assert not left, f"processes {left} of the cluster do not end"
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(b".")
            self._guard.stdin.close()
        self._guard.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
