"""The processes of one private node: its server, its epmd, and the watchdog over both."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from flmq.broker import processes, watchdog
from flmq.broker.identity import NodeIdentity, write_private
from flmq.broker.installed import Programs
from flmq.broker.layout import NodeFolder, node_environment
from flmq.broker.polling import poll_until
from flmq.broker.ports import LOOPBACK, is_free
from flmq.broker.probe import ask_broker
from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerNotFound,
    BrokerRefusal,
    BrokerUnavailable,
)

__all__ = ["NodeProcesses", "PortTaken", "end_node", "server_pid"]

_EPMD_TIMEOUT = 10.0


class PortTaken(BrokerNotFound):
    """A port was taken between being chosen and being listened on."""


class NodeProcesses:
    """Start and end a node's processes. Not thread-safe."""

    def __init__(
        self, place: NodeFolder, *, guarded: bool, removes_folder: bool, start_timeout: float
    ) -> None:
        """Prepare to run a node in ``place``, whose server has ``start_timeout`` seconds to start.

        With ``guarded``, a watchdog ends the processes when this process dies; with
        ``removes_folder``, it then deletes their folder.
        """
        self._place = place
        self._guarded = guarded
        self._removes_folder = removes_folder
        self._start_timeout = start_timeout
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._started: int | None = None

    @property
    def crashed(self) -> bool:
        """Whether the server that was started here has ended by itself."""
        return self._started is not None and server_pid(self._place) is None

    def start(self, identity: NodeIdentity, programs: Programs) -> None:
        """Start the processes, and return when the server accepts logins.

        Raises:
            PortTaken: another program listens on one of the ports by now.
            BrokerNotFound: the server does not come up; names its log.
        """
        env = node_environment(identity, self._place)
        self._set_watchdog()
        # Started by Erlang, epmd would be left behind as an orphan.
        port = identity.ports.epmd
        self._spawn([str(programs.epmd), "-port", str(port), "-address", LOOPBACK], identity, env)
        if not poll_until(lambda: not is_free(port), _EPMD_TIMEOUT):
            raise self._failure("epmd did not start", identity)
        self._started = self._spawn([str(programs.server)], identity, env)
        write_private(self._place.pid_file, f"{self._started}\n")
        self._await_logins(identity)

    def end(self, timeout: float) -> None:
        """End the processes: the server has ``timeout`` seconds to stop, then all are killed."""
        end_node(self._place.path, timeout=timeout)
        self._started = None
        self._release_watchdog()

    def kill_server(self, pid: int) -> None:
        """Kill the server by SIGKILL and wait until it is gone."""
        os.kill(pid, signal.SIGKILL)
        processes.wait_gone(pid, timeout=10.0)
        self._started = None

    def _set_watchdog(self) -> None:
        if not self._guarded:
            return
        afterwards = "remove" if self._removes_folder else "keep"
        owner, script = str(os.getpid()), Path(watchdog.__file__)
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", script, owner, self._place.path, afterwards],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def _release_watchdog(self) -> None:
        guard, self._watchdog = self._watchdog, None
        if guard is not None and guard.stdin is not None:
            # Somebody may have killed it; then there is nothing to release.
            with contextlib.suppress(BrokenPipeError):
                guard.stdin.write(b".")
                guard.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                guard.stdin.close()
            guard.wait()

    def _spawn(self, command: list[str], identity: NodeIdentity, env: dict[str, str]) -> int:
        try:
            return processes.spawn(command, env, self._place.path, self._place.output)
        except OSError as error:
            what = f"{command[0]} cannot be run ({error.strerror})"
            raise self._failure(what, identity) from error

    def _await_logins(self, identity: NodeIdentity) -> None:
        def is_up() -> bool:
            if server_pid(self._place) is None:
                raise self._failure("the server ended while it started", identity)
            return _takes_login(identity)

        if not poll_until(is_up, self._start_timeout):
            what = f"the server did not take logins within {self._start_timeout:g} s"
            raise self._failure(what, identity)

    def _failure(self, what: str, identity: NodeIdentity) -> BrokerNotFound:
        place = self._place
        said = identity.without_secrets(place.end_of_output())
        if "eaddrinuse" in said.lower() or "address already in use" in said.lower():
            return PortTaken(f"a port of the private node was taken while it started: {said}")
        log = place.log if place.log.exists() else place.output
        return BrokerNotFound(
            f"the private RabbitMQ node did not come up: {what}. Its log: {log}"
            + (f". It ends in:\n{said}" if said else "")
        )


def end_node(folder: Path, *, timeout: float = 20.0) -> bool:
    """Stop the node in ``folder``, whoever started it; return whether it was running.

    The server gets ``timeout`` seconds to stop by itself; then all processes of the node are
    killed.

    Raises:
        BrokerRefusal: some cannot be killed, as they belong to another user.
    """
    place = NodeFolder(folder.absolute())
    pid = server_pid(place)
    if pid is not None and timeout > 0:
        # On SIGTERM, RabbitMQ closes its queues and exits.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        processes.wait_gone(pid, timeout)
    left = processes.end_all(place.path)
    if left:
        raise BrokerRefusal(
            f"processes {left} of the node in {folder} do not end: do they belong to another user?"
        )
    place.pid_file.unlink(missing_ok=True)
    return pid is not None


def server_pid(place: NodeFolder) -> int | None:
    """Return the recorded pid if that process is alive and belongs to the node, else None."""
    try:
        pid = int(place.pid_file.read_text())
    except (OSError, ValueError):
        return None
    return pid if processes.belongs(pid, place.path) else None


def _takes_login(identity: NodeIdentity) -> bool:
    try:
        # Try a bare connection first, which is refused faster and more quietly than a login.
        socket.create_connection((LOOPBACK, identity.ports.amqp), 1).close()
        ask_broker(identity.url)
    except (OSError, BrokerUnavailable, BrokerAccessRefused, BrokerRefusal):
        return False
    return True
