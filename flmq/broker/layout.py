"""The files and environment of a private node: configuration, plugins, cookie.

Every key is known to RabbitMQ 3.10 through 4.3; an unknown one would keep a node from booting. See
configure, consumers (acknowledgement timeout) and networking at https://www.rabbitmq.com/docs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from flmq.broker.identity import NodeIdentity, write_private
from flmq.broker.ports import LOOPBACK

__all__ = [
    "FEDERATION_PLUGINS",
    "MANAGEMENT_PLUGIN",
    "PORTABLE_SETTINGS",
    "NodeFolder",
    "node_environment",
]

MANAGEMENT_PLUGIN = "rabbitmq_management"
FEDERATION_PLUGINS = (MANAGEMENT_PLUGIN, "rabbitmq_federation", "rabbitmq_federation_management")
"""What the broker of a site needs: links to other brokers, and the API that makes and shows them.

All come with RabbitMQ; the third shows links."""

PORTABLE_SETTINGS: Mapping[str, int] = {
    # Bytes; the same on every version, for the default fell from 128 to 16 MiB with 4.0.
    "max_message_size": 16 * 2**20,
    # ms: 24 h; the default of 30 min closes the channel of a client that trains longer.
    "consumer_timeout": 24 * 3600 * 1000,
    # s
    "heartbeat": 60,
}
"""Settings of every broker that flmq starts, in rabbitmq.conf or as Erlang arguments."""

_INHERITED = ("PATH", "TMPDIR", "TZ", "USER", "LOGNAME", "LD_LIBRARY_PATH")
_LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"
# Put chunks of 1 MiB into memory that the node keeps: by default it gets each from the system and
# returns it, which took a quarter of its CPU time. erts_alloc(3): threshold and sizes in KiB.
_KEEP_MEMORY = "+MBsbct 16384 +MBsmbcs 16384 +MBlmbcs 65536"


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """The paths in a node's folder."""

    path: Path

    @property
    def home(self) -> Path:
        """The node's HOME, which holds its cookie."""
        return self.path / "home"

    @property
    def logs(self) -> Path:
        """The folder of the node's logs."""
        return self.path / "log"

    @property
    def log(self) -> Path:
        """RabbitMQ's own log."""
        return self.logs / "rabbitmq.log"

    @property
    def output(self) -> Path:
        """What the server and epmd printed."""
        return self.logs / "output.log"

    @property
    def pid_file(self) -> Path:
        """The pid of the most recently started server."""
        return self.path / "server.pid"

    def end_of_output(self) -> str:
        """Return the last lines of what the node printed and logged."""
        lines: list[str] = []
        for file in (self.output, self.log):
            with contextlib.suppress(OSError):
                lines += file.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        return "\n".join(line for line in lines if line.strip())

    def write(
        self, identity: NodeIdentity, settings: Mapping[str, str], plugins: Collection[str]
    ) -> None:
        """Create missing files and folders, and write the configuration for the next start."""
        for folder in (self.home, self.logs, self.path / "data"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        identity.save(self.path)
        lines = {**_settings(identity, plugins), **settings}
        conf = "".join(f"{key} = {value}\n" for key, value in lines.items())
        write_private(self.path / "rabbitmq.conf", conf)
        (self.path / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
        cookie = self.home / ".erlang.cookie"
        write_private(cookie, identity.cookie)
        cookie.chmod(0o400)


def node_environment(identity: NodeIdentity, folder: NodeFolder) -> dict[str, str]:
    """Return the environment of the node and of every tool that talks to it.

    It inherits only a few variables, so that neither the machine's RabbitMQ configuration nor the
    caller's environment changes the node.
    """
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    path = folder.path
    return {
        **inherited,
        "HOME": str(folder.home),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "ERL_EPMD_PORT": str(identity.ports.epmd),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_CRASH_DUMP": str(folder.logs / "erl_crash.dump"),
        "RABBITMQ_NODENAME": identity.name,
        "RABBITMQ_DIST_PORT": str(identity.ports.distribution),
        "RABBITMQ_CONFIG_FILE": str(path / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(path / "conf.d"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(path / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(path / "rabbitmq-env.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(path / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(path / "data"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(path / "generated"),
        "RABBITMQ_PLUGINS_EXPAND_DIR": str(path / "plugins"),
        "RABBITMQ_LOG_BASE": str(folder.logs),
        "RABBITMQ_LOGS": str(folder.log),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_LOOPBACK_ONLY} {_KEEP_MEMORY}",
        "RABBITMQ_CTL_ERL_ARGS": _LOOPBACK_ONLY,
        # Otherwise the tools of all nodes on the machine share eleven ports.
        "RABBITMQ_CTL_DIST_PORT_MIN": "0",
        "RABBITMQ_CTL_DIST_PORT_MAX": "0",
        # The start script then execs the server instead of waiting for it: one pid for both.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def _settings(identity: NodeIdentity, plugins: Collection[str]) -> dict[str, str]:
    settings = {
        "listeners.tcp.1": f"{LOOPBACK}:{identity.ports.amqp}",
        "default_user": identity.user,
        "default_pass": identity.password,
        "default_vhost": identity.vhost,
        "default_user_tags.administrator": "true",
        "default_permissions.configure": ".*",
        "default_permissions.read": ".*",
        "default_permissions.write": ".*",
        **{key: str(value) for key, value in PORTABLE_SETTINGS.items()},
        "vm_memory_high_watermark.relative": "0.4",
        # A laptop's disk may be nearly full; that should not block the node.
        "disk_free_limit.absolute": "200MB",
        "tcp_listen_options.sndbuf": "131072",
        "tcp_listen_options.recbuf": "131072",
        # The default on 4.x, and its only possible value there.
        "classic_queue.default_version": "2",
        "log.console": "false",
        "log.file.level": "info",
    }
    if MANAGEMENT_PLUGIN in plugins:
        settings["management.tcp.ip"] = LOOPBACK
        settings["management.tcp.port"] = str(identity.ports.management)
    return settings
