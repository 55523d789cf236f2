"""Check the installation and the broker, and name the command that fixes each problem.

No finding contains a password.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping

from flmq.broker import persistent_nodes
from flmq.broker.check import Check
from flmq.broker.container import daemon_objection
from flmq.broker.examination import certificate, examine
from flmq.broker.installed import (
    NotInstalled,
    Programs,
    erlang_release,
    find_programs,
    server_version,
)
from flmq.broker.management import Management, management_of
from flmq.broker.policies import dropping_policies
from flmq.broker.probe import BrokerFacts, ask_broker
from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerError,
    FlmqError,
    StoredDataError,
    TooManyConnections,
)
from flmq.common.urls import BrokerUrl, InvalidBrokerUrl, parse_broker_url

__all__ = ["check_broker", "run_checks", "supported_version"]

_OLDEST, _NEWEST_MAJOR = (3, 10), 4
_EXTRAS = {
    "sklearn": ("scikit-learn", "the digits demo", "pip install 'flmq[demo]'"),
    "matplotlib": ("matplotlib", "the demo's picture", "pip install 'flmq[demo]'"),
    "testcontainers": ("testcontainers", "brokers in containers", "pip install 'flmq[docker]'"),
    "torch": ("torch", "the PyTorch example", "pip install torch"),
}
_BOUND = re.compile(r"(>=|<)\s*(\d+(?:\.\d+)*)")


def run_checks(
    url: str | None = None,
    *,
    management: Management | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[Check]:
    """Check everything that flmq depends on, within a few seconds; never raises.

    The broker checked is ``url``, or else FLMQ_BROKER_URL, as for `flmq server` and `flmq client`;
    its ``management`` API is where FLMQ_MANAGEMENT_URL says, unless given.
    Something is wrong if ``any(check.ok is False for check in checks)``.
    """
    environ = os.environ if environ is None else environ
    address = url or environ.get("FLMQ_BROKER_URL")
    api = environ.get("FLMQ_MANAGEMENT_URL")
    broker = list(check_broker(address, management, api))
    answered = any(check.name == "broker" and check.ok for check in broker)
    return [
        _python(),
        *_libraries(),
        *_extras(),
        *_local_broker(environ, needed=not (answered or address)),
        _standing(environ),
        *broker,
    ]


def supported_version(version: str) -> bool:
    """Return whether flmq supports this RabbitMQ version: 3.10 through 4.x."""
    numbers = _numbers(version)
    return bool(numbers) and numbers[:2] >= _OLDEST and numbers[0] <= _NEWEST_MAJOR


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check(
        "python", ok, platform.python_version(), "" if ok else "install Python 3.11 or newer"
    )


def _libraries() -> Iterator[Check]:
    try:
        yield Check("flmq", True, importlib.metadata.version("flmq"))
        wanted = importlib.metadata.requires("flmq") or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("flmq", False, "runs from its source, not installed", "pip install -e .")
        return
    for line in wanted:
        requirement, _, marker = line.partition(";")
        if not marker:
            yield _library(requirement.strip())


def _library(requirement: str) -> Check:
    name = re.split(r"[\s\[<>=!~(]", requirement, maxsplit=1)[0]
    mend = f"pip install '{requirement}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, "missing", mend)
    if _within(version, requirement):
        return Check(name, True, version)
    return Check(name, False, f"{version}; flmq needs {requirement}", mend)


def _within(version: str, requirement: str) -> bool:
    have = _numbers(version)
    for sign, bound in _BOUND.findall(requirement):
        if (have < _numbers(bound)) == (sign == ">="):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in leading.group().split(".")) if leading else ()


def _extras() -> Iterator[Check]:
    for module, (package, purpose, mend) in _EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            yield Check(package, None, f"not installed; only for {purpose}", mend)
        else:
            yield Check(package, True, _version_of(package))


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "installed"


def _local_broker(environ: Mapping[str, str], *, needed: bool) -> Iterator[Check]:
    """Check RabbitMQ, Erlang and Docker on this machine: one way to get a broker is enough."""
    objection = daemon_objection()
    try:
        programs: Programs | None = find_programs(environ)
        reason = ""
    except NotInstalled as error:
        programs, reason = None, error.reason
    lacking = False if needed and objection else None
    mend = "sudo apt-get install rabbitmq-server"
    if programs is None:
        yield Check("rabbitmq-server", lacking, reason, mend)
    else:
        version = server_version(programs)
        fits = supported_version(version) if version else None
        yield Check(
            "rabbitmq-server",
            fits,
            f"{version or 'of unknown version'} ({programs.server})",
            "install RabbitMQ 3.10 to 4.x" if fits is False else "",
        )
    erlang = erlang_release(environ)
    if erlang is None:
        yield Check("erlang", lacking if programs is None else False, "none on PATH", mend)
    else:
        yield Check("erlang", True, erlang)
    yield Check("docker", None if objection else True, objection or "a daemon answers")


def _standing(environ: Mapping[str, str]) -> Check:
    """Check the persistent nodes of ``flmq broker up``."""
    try:
        all_of_them = [
            persistent_nodes.status(name, environ=environ)
            for name in persistent_nodes.standing_names(environ=environ)
        ]
    except StoredDataError as error:
        return Check("standing broker", False, str(error), "flmq broker down --purge")
    except FlmqError as error:
        return Check("standing broker", None, str(error))
    running = {one.name: one.node for one in all_of_them if one.running and one.node}
    if not running:
        return Check("standing broker", None, "none is up", "flmq broker up")
    found = ", ".join(f"{name} at {node.shown_url}" for name, node in sorted(running.items()))
    return Check("standing broker", True, found)


def check_broker(
    url: str | None, management: Management | None, api: str | None
) -> Iterator[Check]:
    """Check the broker at ``url``; ``api`` is the URL of its management API, if it is not given.

    Never raises.
    """
    if url is None:
        found = "neither --broker nor FLMQ_BROKER_URL names one, as server and client need it"
        mend = "eval $(flmq broker up), or FLMQ_BROKER_URL=amqp://user:password@host:5672/vhost"
        yield Check("broker", False, found, mend)
        return
    try:
        address = parse_broker_url(url)
        facts = ask_broker(address, declare=True)
    except InvalidBrokerUrl as error:
        yield Check("broker", False, str(error), "correct the URL")
    except BrokerAccessRefused as error:
        yield Check("broker", False, str(error), "correct the URL, or what the broker knows of you")
    except TooManyConnections as error:
        yield Check("broker", False, str(error), "raise the limit, or stop other processes")
    except BrokerError as error:
        yield Check("broker", False, str(error), "start it, or correct the URL: flmq broker up")
    else:
        yield Check("broker", True, f"{address} answers")
        yield from _judge(address, facts)
        if management is None and (api is not None or not address.tls):
            # Do not send in the clear the password of a broker that is reached by TLS.
            management = management_of(address, api, timeout=2.0)
        yield _plugins(management)
        yield _policies(management, address.vhost)
        yield from examine(management, address)
        if address.tls:
            yield certificate(address)


def _plugins(api: Management | None) -> Check:
    """List the broker's plugins as the management API reports them; flmq itself needs none."""
    name, mend = (
        "broker plugins",
        "rabbitmq-plugins enable rabbitmq_management, to have them listed",
    )
    if api is None:
        return Check(name, None, "not asked, for the way to the management API is not encrypted")
    try:
        nodes = api.call("GET", "/api/nodes")
        plugins = {plugin for node in nodes for plugin in node.get("enabled_plugins", ())}
    except BrokerError as error:
        return Check(name, None, f"not known: {error}", mend)
    if not plugins:
        # The API itself is a plugin; a node first reports its plugins some seconds after its start.
        return Check(name, None, "not known yet: the broker has only just started")
    return Check(name, True, ", ".join(sorted(plugins)))


def _policies(api: Management | None, vhost: str) -> Check:
    """Find policies that may drop flmq's messages; only the management API knows."""
    name = "broker policies"
    mend = f"rabbitmqctl list_policies -p {vhost}; rabbitmqctl list_operator_policies -p {vhost}"
    if api is None:
        return Check(name, None, "not asked, as the plugins were not", mend)
    try:
        found = dropping_policies(api, vhost)
    except BrokerError as error:
        return Check(name, None, f"not known: {error}", mend)
    if not found:
        return Check(name, True, "none drops messages of flmq")
    lines, commands = zip(*found, strict=True)
    return Check(name, False, "; ".join(lines), "; ".join(commands))


def _judge(address: BrokerUrl, facts: BrokerFacts) -> Iterator[Check]:
    named = f"{facts.product or 'unnamed'} {facts.version or 'of unknown version'}"
    fits = facts.product == "RabbitMQ" and supported_version(facts.version)
    yield Check("broker version", fits, named, "" if fits else "use RabbitMQ 3.10 to 4.x")
    if facts.missing:
        lacks = f"lacks {', '.join(facts.missing)}"
        yield Check("broker capabilities", False, lacks, "use RabbitMQ 3.10 to 4.x")
    else:
        yield Check("broker capabilities", True, "all that flmq needs")
    if facts.alarm:
        found = f"it lets nobody publish: {facts.alarm}; servers and clients wait until it does"
        mend = (
            "free memory or disk space on its machine, or raise vm_memory_high_watermark or lower "
            "disk_free_limit; rabbitmq-diagnostics alarms says which node"
        )
        yield Check("broker alarms", False, found, mend)
    else:
        yield Check("broker alarms", True, "none")
    if facts.provisioned:
        yield Check("provisioned", True, "each client has its own credentials here")
    else:
        found = "no: whoever may log in may do everything on this virtual host"
        mend = "flmq provision --file federation.toml, unless all who log in trust each other"
        yield Check("provisioned", None, found, mend)
    if facts.can_declare:
        yield Check("permissions", True, f"user {address.user!r} may declare queues")
    elif facts.provisioned:
        found = f"user {address.user!r} may declare nothing, as it should be where all is provided"
        yield Check("permissions", True, found)
    else:
        command = f"rabbitmqctl set_permissions -p {address.vhost} {address.user} '.*' '.*' '.*'"
        found = f"user {address.user!r} may not declare queues on {address.vhost!r}"
        yield Check("permissions", False, found, command)
