"""Locate the programs of RabbitMQ and Erlang on this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flmq.common.errors import BrokerNotFound

__all__ = [
    "HOW_TO_GET_ONE",
    "NotInstalled",
    "Programs",
    "erlang_release",
    "find_programs",
    "server_version",
]

HOW_TO_GET_ONE = """\
Any one of these will do:
  Debian, Ubuntu     sudo apt-get install rabbitmq-server (in flmq's own checkout: make broker)
  a broker you have  export FLMQ_BROKER_URL=amqp://user:password@host:5672/vhost
  Docker             pip install 'flmq[docker]', and a daemon that answers
  no broker at all   flmq demo --in-memory shows flmq without RabbitMQ"""

# Debian's programs on PATH are wrappers that switch to the user rabbitmq; they call these.
_PREFERRED = Path("/usr/lib/rabbitmq/bin")
_WRAPPER = "rabbitmq-script-wrapper"
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/sbin"


class NotInstalled(BrokerNotFound):
    """A program that a private node needs is not installed."""

    def __init__(self, reason: str) -> None:
        """Set the bare ``reason``; the message adds how to get a broker."""
        self.reason = reason
        super().__init__(f"{reason}. {HOW_TO_GET_ONE}")


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the programs that a private node needs."""

    server: Path
    ctl: Path
    epmd: Path
    """Erlang's port mapper daemon, through which nodes find each other."""


def find_programs(environ: Mapping[str, str] | None = None) -> Programs:
    """Find the programs; ``FLMQ_RABBITMQ_SERVER`` may name the server of an unpacked release.

    Raises:
        NotInstalled: one is missing; says which and how to get it.
    """
    environ = os.environ if environ is None else environ
    server = _server(environ)
    if server is None:
        raise NotInstalled("no rabbitmq-server is installed on this machine")
    ctl = server.with_name("rabbitmqctl")
    if not os.access(ctl, os.X_OK):
        raise NotInstalled(f"{server} has no rabbitmqctl beside it")
    return Programs(server, ctl, _epmd(environ))


def server_version(programs: Programs) -> str:
    """Return the version of the installed RabbitMQ without starting it; empty if unknown."""
    home = programs.server.resolve().parent.parent
    for folder in (home, *sorted(home.glob("plugins/rabbit-*"))):
        found = re.search(r"(?:rabbitmq_server|rabbit)-(\d+(?:\.\d+)+)", folder.name)
        if found:
            return found.group(1)
    return ""


def erlang_release(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the release of the Erlang on PATH, such as "25"; None if absent or not running."""
    erl = shutil.which("erl", path=_search_path(os.environ if environ is None else environ))
    if erl is None:
        return None
    ask = "io:put_chars(erlang:system_info(otp_release)), halt()."
    try:
        answer = subprocess.run(
            [erl, "-noshell", "-eval", ask], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _server(environ: Mapping[str, str]) -> Path | None:
    given = environ.get("FLMQ_RABBITMQ_SERVER")
    if given:
        if not os.access(given, os.X_OK):
            raise NotInstalled(
                f"FLMQ_RABBITMQ_SERVER names {given}, which is no program that can be run"
            )
        return Path(given)
    preferred = _PREFERRED / "rabbitmq-server"
    found = shutil.which("rabbitmq-server", path=_search_path(environ))
    candidates = [preferred] + ([Path(found)] if found else [])
    usable = (path for path in candidates if os.access(path, os.X_OK))
    return next((path for path in usable if path.resolve().name != _WRAPPER), None)


def _epmd(environ: Mapping[str, str]) -> Path:
    path = _search_path(environ)
    found = shutil.which("epmd", path=path)
    if found:
        return Path(found)
    erl = shutil.which("erl", path=path)
    beside = Path(erl).resolve().with_name("epmd") if erl else None
    if beside and os.access(beside, os.X_OK):
        return beside
    raise NotInstalled("rabbitmq-server is here, but Erlang is not on PATH (no erl, no epmd)")


def _search_path(environ: Mapping[str, str]) -> str:
    # An ordinary user's PATH often lacks the folders where servers are installed.
    return f"{environ.get('PATH', os.defpath)}:{_SYSTEM_FOLDERS}"
