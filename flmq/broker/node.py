"""A private RabbitMQ node: started from the local binary, used, stopped, and removed without trace.

It listens on loopback only, on its own ports, under its own name, cookie and epmd, so that it
interferes neither with the machine's RabbitMQ nor with other private nodes. Unless started
unguarded, a watchdog ends it when this Python process dies, however it dies.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from flmq.broker import processes
from flmq.broker.identity import NodeIdentity, load_identity, new_identity
from flmq.broker.installed import Programs, find_programs
from flmq.broker.layout import MANAGEMENT_PLUGIN, NodeFolder, node_environment
from flmq.broker.management import Management
from flmq.broker.node_processes import NodeProcesses, PortTaken, server_pid
from flmq.broker.ports import LOOPBACK, NodePorts
from flmq.broker.rabbitmqctl import run_rabbitmqctl
from flmq.broker.tls import NodeTls
from flmq.common.errors import BrokerNotFound, BrokerRefusal, BrokerUnavailable
from flmq.common.logger import get_logger

__all__ = ["START_SECONDS", "PrivateNode"]

START_SECONDS = 120.0
"""Seconds that a node may take to start."""

_log = get_logger("flmq.broker")
_ATTEMPTS = 3


class PrivateNode:
    """A private RabbitMQ node. A context manager; not thread-safe.

    With a ``folder``, the node keeps data, name and login there and finds them at its next start;
    without one it uses a temporary folder, which `stop` deletes. ``identity`` sets name, cookie and
    ports (nodes of a cluster share a cookie). ``settings`` are lines of rabbitmq.conf that override
    flmq's own. ``plugins`` are enabled: ``(MANAGEMENT_PLUGIN,)`` for the management API,
    ``FEDERATION_PLUGINS`` for a site of a federation (`flmq.broker.layout`). With ``tls`` it also
    listens for TLS; `tls_url` says where. ``guarded=False`` lets the node outlive this process;
    another one can stop it, given the same folder.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        programs: Programs | None = None,
        identity: NodeIdentity | None = None,
        settings: Mapping[str, str] | None = None,
        plugins: Sequence[str] = (),
        tls: NodeTls | None = None,
        guarded: bool = True,
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
        self._tls = tls
        self._settings = dict(settings or {})
        self._plugins = (*plugins, *(tls.plugins if tls is not None else ()))
        self._processes = NodeProcesses(
            self._folder,
            guarded=guarded,
            removes_folder=self._temporary,
            start_timeout=START_SECONDS,
        )
        self._keep_folder = False

    @property
    def url(self) -> str:
        """AMQP URL of the node, including its random password: do not log it."""
        return self._identity.url.full

    @property
    def tls_url(self) -> str:
        """AMQPS URL of the node, with its password and authority: do not log it.

        Where clients need a certificate, add theirs (``&certfile=...&keyfile=...``).
        """
        if self._tls is None:
            raise BrokerRefusal("this node runs without TLS: give it a NodeTls")
        return replace(
            self._identity.url,
            host="localhost",
            port=self.ports.amqps,
            tls=True,
            options=(("cafile", str(self._tls.cafile.absolute())),),
        ).full

    @property
    def shown_url(self) -> str:
        """The URL without the password."""
        return str(self._identity.url)

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
        """The management API; raises `BrokerRefusal` if its plugin is not among ``plugins``."""
        if MANAGEMENT_PLUGIN not in self._plugins:
            raise BrokerRefusal(
                f"this node runs without its management API: plugins=({MANAGEMENT_PLUGIN!r},)"
            )
        who = self._identity
        return Management(LOOPBACK, who.ports.management, who.user, who.password)

    @property
    def pid(self) -> int | None:
        """Pid of the running server, even if another process started it; None if it is down."""
        return server_pid(self._folder)

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
            except PortTaken as error:
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
        if self._processes.crashed:
            self._keep_folder = True
            _log.warning("the private RabbitMQ node ended by itself; its log: %s", self.log)
        grace = 2.0 if self._temporary else 20.0
        try:
            self._processes.end(grace if timeout is None else timeout)
        finally:
            if self._temporary and not self._keep_folder:
                shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """Kill the server as a crash would (SIGKILL); `start` brings it back with its data."""
        pid = self.pid
        if pid is None:
            raise BrokerUnavailable("there is no running node to kill")
        self._processes.kill_server(pid)

    def restart(self) -> None:
        """Stop the server gracefully and start it again: same data, same ports."""
        self._processes.end(timeout=20.0)
        self.start()

    def ctl(self, *arguments: str, timeout: float = 60.0) -> str:
        """Run ``rabbitmqctl`` on this node and return its output. Takes one or two seconds.

        Raises:
            BrokerRefusal: it fails; with the end of its output.
        """
        env = {**node_environment(self._identity, self._folder), processes.MARK: str(self.folder)}
        return run_rabbitmqctl(
            self._programs.ctl, self._identity, arguments, env=env, timeout=timeout
        )

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
        self._processes.end(timeout=0.0)
        busy = self.ports.busy()
        if busy:
            raise PortTaken(f"port {busy[0]} of {LOOPBACK} is in use by another program")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tls = {} if self._tls is None else self._tls.settings(self.ports.amqps)
        self._folder.write(self._identity, {**tls, **self._settings}, self._plugins)
        # So that a failure shows the output of this start only.
        self._folder.output.unlink(missing_ok=True)
        try:
            self._processes.start(self._identity, programs)
        except BaseException as error:
            self._keep_folder = isinstance(error, BrokerNotFound) and not isinstance(
                error, PortTaken
            )
            self._processes.end(timeout=0.0)
            if self._temporary and not self._keep_folder:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
