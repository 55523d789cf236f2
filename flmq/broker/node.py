"""A private RabbitMQ node: started from the local binary, used, stopped, and removed without trace.

It listens on loopback only, on its own ports, under its own name, cookie and epmd, so that it
interferes neither with the machine's RabbitMQ nor with other private nodes. Unless started
unguarded, a watchdog ends it when this Python process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from flmq.broker import processes, watchdog
from flmq.broker.identity import NodeIdentity, load_identity, new_identity, write_private
from flmq.broker.installed import Programs, find_programs
from flmq.broker.layout import NodeFolder, node_environment
from flmq.broker.management import Management
from flmq.broker.ports import LOOPBACK, NodePorts, is_free
from flmq.broker.probe import ask_broker
from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerNotFound,
    BrokerRefusal,
    BrokerUnavailable,
)

__all__ = ["PrivateNode", "end_node"]

_log = logging.getLogger("flmq.broker")
_ATTEMPTS = 3
_POLL = 0.05


class PrivateNode:
    """A private RabbitMQ node. A context manager; not thread-safe.

    With a ``folder``, the node keeps data, name and login there and finds them at its next start;
    without one it uses a temporary folder, which `stop` deletes. ``identity`` sets name, cookie and
    ports (nodes of a cluster share a cookie). ``settings`` are lines of rabbitmq.conf that override
    flmq's own. ``management`` enables the management API. ``guarded=False`` lets the node outlive
    this process; another one can stop it, given the same folder.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        programs: Programs | None = None,
        identity: NodeIdentity | None = None,
        settings: Mapping[str, str] | None = None,
        management: bool = False,
        guarded: bool = True,
        start_timeout: float = 120.0,
    ) -> None:
        """Prepare a node; nothing is started or written before `start`.

        Raises:
            StoredDataError: ``folder`` holds a damaged identity.
            BrokerNotFound: the system has no /proc.
        """
        if not processes.supported():
            raise BrokerNotFound(
                "private nodes need Linux (its /proc): start a RabbitMQ by other means and give "
                "its URL (FLMQ_BROKER_URL)"
            )
        self._temporary = folder is None
        if folder is None:
            folder = Path(tempfile.gettempdir()) / f"flmq-broker-{secrets.token_hex(6)}"
        self._folder = NodeFolder(folder.absolute())
        self._given_programs = programs
        known = identity or load_identity(folder)
        self._identity = known or new_identity()
        # Ports that others may already know are kept; fresh ones may be chosen again.
        self._ports_are_known = known is not None
        self._settings = dict(settings or {})
        self._management = management
        self._guarded = guarded
        self._start_timeout = start_timeout
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._keep_folder = False

    @property
    def url(self) -> str:
        """AMQP URL of the node, including its random password: do not log it."""
        return self._identity.url.full

    @property
    def shown_url(self) -> str:
        """The URL without the password."""
        return str(self._identity.url)

    @property
    def name(self) -> str:
        """Erlang name of the node, such as ``flmq-1a2b3c4d@localhost``."""
        return self._identity.name

    @property
    def ports(self) -> NodePorts:
        """The node's loopback ports."""
        return self._identity.ports

    @property
    def folder(self) -> Path:
        """The folder of the node's data, configuration and logs."""
        return self._folder.path

    @property
    def log(self) -> Path:
        """RabbitMQ's log."""
        return self._folder.log

    @property
    def management(self) -> Management:
        """The management API; raises `BrokerRefusal` unless made with ``management=True``."""
        if not self._management:
            raise BrokerRefusal("this node runs without its management API: management=True")
        who = self._identity
        return Management(LOOPBACK, who.ports.management, who.user, who.password)

    @property
    def pid(self) -> int | None:
        """Pid of the running server, even if another process started it; None if it is down."""
        return _server_pid(self._folder)

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return self.pid is not None

    def start(self) -> Self:
        """Start the node and return when it accepts logins; do nothing if it is running.

        Takes some 5 to 8 s. A node that was started before comes back on the same ports.

        Raises:
            BrokerNotFound: RabbitMQ is not installed, or the node does not come up (names its log).
        """
        if self.running:
            return self
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._start_once()
            except _PortTaken as error:
                if self._ports_are_known or attempt == _ATTEMPTS:
                    raise BrokerNotFound(str(error)) from None
                self._identity = new_identity()
            else:
                self._ports_are_known = True
                return self
        raise AssertionError("unreachable: the last attempt returns or raises")

    def stop(self, *, timeout: float | None = None) -> None:
        """Stop the node and all its processes; kill them after ``timeout`` seconds.

        The default is 20 s, or 2 s if the data is deleted with the node. A temporary folder is
        deleted, unless the node had failed: then a warning names its log.
        """
        self._notice_crash()
        grace = 2.0 if self._temporary else 20.0
        try:
            self._halt(grace if timeout is None else timeout)
        finally:
            if self._temporary and not self._keep_folder:
                shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """Kill the server as a crash would (SIGKILL); `start` brings it back with its data."""
        pid = self.pid
        if pid is None:
            raise BrokerUnavailable("there is no running node to kill")
        os.kill(pid, signal.SIGKILL)
        processes.wait_gone(pid, timeout=10.0)
        self._pid = None

    def restart(self) -> None:
        """Stop the server gracefully and start it again: same data, same ports."""
        self._halt(timeout=20.0)
        self.start()

    def ctl(self, *arguments: str, timeout: float = 60.0) -> str:
        """Run ``rabbitmqctl`` on this node and return its output. Takes one or two seconds.

        Raises:
            BrokerRefusal: it fails; with the end of its output.
        """
        command = [str(self._programs.ctl), "-q", "-n", self.name, *arguments]
        env = {**node_environment(self._identity, self._folder), processes.MARK: str(self.folder)}
        what = f"rabbitmqctl {arguments[0] if arguments else ''}".strip()
        try:
            done = subprocess.run(
                command, env=env, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise BrokerRefusal(f"{what} did not end within {timeout:g} s") from None
        if done.returncode != 0:
            said = self._without_secrets((done.stderr or done.stdout).strip()[-600:])
            raise BrokerRefusal(f"{what} failed with status {done.returncode}: {said}")
        return done.stdout

    def evaluate(self, expression: str) -> str:
        """Evaluate an Erlang ``expression`` inside the node; return its printed value.

        For tests that change a setting of a running node, such as ``application:set_env(rabbit,
        channel_tick_interval, 1000).``
        """
        return self.ctl("eval", expression).strip()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    @cached_property
    def _programs(self) -> Programs:
        return self._given_programs or find_programs()

    def _start_once(self) -> None:
        programs = self._programs
        # Processes left by a crash (epmd, port programs) would hold the ports.
        self._halt(timeout=0.0)
        busy = self.ports.busy()
        if busy:
            raise _PortTaken(f"port {busy[0]} of {LOOPBACK} is in use by another program")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.write(self._identity, self._settings, self._management)
        # So that a failure shows the output of this start only.
        self._folder.output.unlink(missing_ok=True)
        try:
            self._set_watchdog()
            self._start_epmd(programs)
            self._start_server(programs)
            self._await_logins()
        except BaseException as error:
            self._keep_folder = isinstance(error, BrokerNotFound) and not isinstance(
                error, _PortTaken
            )
            self._halt(timeout=0.0)
            if self._temporary and not self._keep_folder:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _set_watchdog(self) -> None:
        if not self._guarded:
            return
        script, afterwards = Path(watchdog.__file__), "remove" if self._temporary else "keep"
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", script, str(os.getpid()), self.folder, afterwards],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def _start_epmd(self, programs: Programs) -> None:
        """Start epmd as our child; started by Erlang, it would be left behind as an orphan."""
        port = self.ports.epmd
        self._spawn([str(programs.epmd), "-port", str(port), "-address", LOOPBACK])
        deadline = time.monotonic() + 10.0
        while is_free(port):
            if time.monotonic() > deadline:
                raise self._failure("epmd did not start")
            time.sleep(_POLL)

    def _start_server(self, programs: Programs) -> None:
        self._pid = self._spawn([str(programs.server)])
        write_private(self._folder.pid_file, f"{self._pid}\n")

    def _spawn(self, command: list[str]) -> int:
        env = node_environment(self._identity, self._folder)
        try:
            return processes.spawn(command, env, self.folder, self._folder.output)
        except OSError as error:
            raise self._failure(f"{command[0]} cannot be run ({error.strerror})") from error

    def _await_logins(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            if not self.running:
                raise self._failure("the server ended while it started")
            if self._takes_login():
                return
            time.sleep(_POLL)
        raise self._failure(f"the server did not take logins within {self._start_timeout:g} s")

    def _takes_login(self) -> bool:
        try:
            # Try a bare connection first, which is refused faster and more quietly than a login.
            socket.create_connection((LOOPBACK, self.ports.amqp), 1).close()
            ask_broker(self._identity.url)
        except (OSError, BrokerUnavailable, BrokerAccessRefused, BrokerRefusal):
            return False
        return True

    def _failure(self, what: str) -> BrokerNotFound:
        said = self._end_of_output()
        if "eaddrinuse" in said.lower() or "address already in use" in said.lower():
            return _PortTaken(f"a port of the private node was taken while it started: {said}")
        log = self._folder.log if self._folder.log.exists() else self._folder.output
        return BrokerNotFound(
            f"the private RabbitMQ node did not come up: {what}. Its log: {log}"
            + (f". It ends in:\n{said}" if said else "")
        )

    def _end_of_output(self) -> str:
        lines: list[str] = []
        for file in (self._folder.output, self._folder.log):
            with contextlib.suppress(OSError):
                lines += file.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        return self._without_secrets("\n".join(line for line in lines if line.strip()))

    def _without_secrets(self, text: str) -> str:
        for secret in (self._identity.password, self._identity.cookie):
            text = text.replace(secret, "***")
        return text

    def _notice_crash(self) -> None:
        if self._pid is not None and not self.running:
            self._keep_folder = True
            _log.warning("the private RabbitMQ node ended by itself; its log: %s", self.log)

    def _halt(self, timeout: float) -> None:
        end_node(self.folder, timeout=timeout)
        self._pid = None
        self._release_watchdog()

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


def end_node(folder: Path, *, timeout: float = 20.0) -> bool:
    """Stop the node in ``folder``, whoever started it; return whether it was running.

    The server gets ``timeout`` seconds to stop by itself; then all processes of the node are
    killed.

    Raises:
        BrokerRefusal: some cannot be killed, as they belong to another user.
    """
    place = NodeFolder(folder.absolute())
    pid = _server_pid(place)
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


def _server_pid(place: NodeFolder) -> int | None:
    """Return the recorded pid if that process is alive and belongs to the node, else None."""
    try:
        pid = int(place.pid_file.read_text())
    except (OSError, ValueError):
        return None
    return pid if processes.belongs(pid, place.path) else None


class _PortTaken(BrokerNotFound):
    """A port was taken between being chosen and being listened on."""
