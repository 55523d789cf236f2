"""Find a broker, in this order: a given URL, this machine's RabbitMQ, a container.

Used by the demo, the tests and the benchmarks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from flmq.broker import processes
from flmq.broker.container import ContainerBroker, daemon_objection
from flmq.broker.installed import HOW_TO_GET_ONE, NotInstalled, Programs, find_programs
from flmq.broker.layout import MANAGEMENT_PLUGIN
from flmq.broker.management import Management, management_of
from flmq.broker.node import PrivateNode
from flmq.broker.probe import ask_broker
from flmq.common.errors import BrokerNotFound, BrokerUnavailable
from flmq.common.urls import BrokerUrl, parse_broker_url

__all__ = ["Broker", "Origin", "obtain_broker"]


class Origin(Enum):
    """Where a broker came from."""

    GIVEN = "given by its URL"
    LOCAL = "a private node of the local rabbitmq-server"
    CONTAINER = "a container"


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that accepts logins."""

    url: str = field(repr=False)
    """Includes the password: do not log it."""
    shown_url: str
    """Without the password."""
    origin: Origin
    management: Management | None = None
    """The management API; None if not requested."""
    node: PrivateNode | None = None
    """The private node; None if the broker is something else."""


@contextlib.contextmanager
def obtain_broker(
    url: str | None = None,
    *,
    management: bool = False,
    settings: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> Iterator[Broker]:
    """Yield a broker; what was started for it is stopped and removed at the end.

    ``url``, or FLMQ_BROKER_URL, comes first: it must answer, and nothing else is tried. Next the
    local rabbitmq-server, as a `PrivateNode` with ``settings`` in its rabbitmq.conf; then a
    container. With ``management`` the management API is available too; for a given broker, at
    FLMQ_MANAGEMENT_URL or on port 15672 of its host, as the same user. ``on_step`` is called with a
    short text on what is being started, before it takes its seconds.

    Raises:
        InvalidBrokerUrl: the given URL cannot be used.
        BrokerUnavailable: the given broker does not answer.
        BrokerAccessRefused: the given broker refuses the login.
        BrokerNotFound: no broker was given or found; says how to get one.
    """
    environ = os.environ if environ is None else environ
    tell = on_step or (lambda _: None)
    given = url or environ.get("FLMQ_BROKER_URL")
    if given:
        address = parse_broker_url(given)
        ask_broker(address)
        api = _given_management(address, environ) if management else None
        yield Broker(address.full, str(address), Origin.GIVEN, api)
        return
    programs = _local_programs(environ)
    if isinstance(programs, Programs):
        tell("starting a private RabbitMQ node")
        plugins = (MANAGEMENT_PLUGIN,) if management else ()
        with PrivateNode(programs=programs, settings=settings, plugins=plugins) as node:
            api = node.management if management else None
            yield Broker(node.url, node.shown_url, Origin.LOCAL, api, node)
        return
    objection = daemon_objection()
    if objection:
        raise BrokerNotFound(f"no RabbitMQ: {programs}; {objection}. {HOW_TO_GET_ONE}")
    container = ContainerBroker(environ=environ, management=management)
    tell(f"starting a container of {container.image}")
    with container:
        api = container.management if management else None
        yield Broker(container.url, container.shown_url, Origin.CONTAINER, api)


def _given_management(address: BrokerUrl, environ: Mapping[str, str]) -> Management:
    """Return the management API of a given broker, after a test call."""
    management = management_of(address, environ.get("FLMQ_MANAGEMENT_URL"))
    try:
        management.call("GET", "/api/whoami")
    except BrokerUnavailable as error:
        raise BrokerUnavailable(
            f"the management API of the given broker is needed: {error} FLMQ_MANAGEMENT_URL says "
            "where it is (http://host:15672)"
        ) from error
    return management


def _local_programs(environ: Mapping[str, str]) -> Programs | str:
    """Return the local programs, or why a private node is impossible."""
    if not processes.supported():
        return "private nodes need Linux"
    if environ.get("FLMQ_RABBITMQ_SERVER"):
        # The user named it on purpose: report that it does not work, rather than ignore it.
        return find_programs(environ)
    try:
        return find_programs(environ)
    except NotInstalled as error:
        return error.reason
