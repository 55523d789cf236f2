"""Where a broker comes from: a URL, this machine's RabbitMQ, a container; in this order.

The demo, the tests and the benchmarks all ask here.
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
    """A broker that takes logins."""

    url: str = field(repr=False)
    """With its password: not for logs."""
    shown_url: str
    """Without."""
    origin: Origin
    management: Management | None = None
    """The management API, where it was asked for."""
    node: PrivateNode | None = None
    """The private node, where it is one."""


@contextlib.contextmanager
def obtain_broker(
    url: str | None = None,
    *,
    management: bool = False,
    settings: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> Iterator[Broker]:
    """Yield a broker; what was started for it is stopped, and gone, at the end.

    ``url``, or FLMQ_BROKER_URL, comes first: it must answer, nothing else is tried. Then the local
    rabbitmq-server, as a `PrivateNode` with ``settings`` in its rabbitmq.conf; then a container.
    With ``management`` the management API is there too; a given broker has it where
    FLMQ_MANAGEMENT_URL says, or on its host's port 15672, for the same user. ``on_step`` is told
    in a few words what is being started, before it takes its seconds.

    Raises `InvalidBrokerUrl`, `BrokerUnavailable` or `BrokerAccessRefused` for a URL that does not
    work, and `BrokerNotFound`, which says how to get a broker, where there is none.
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
        with PrivateNode(programs=programs, settings=settings, management=management) as node:
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
    """The management API of a given broker, tried out."""
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
    """The local programs, or why a private node is out of the question."""
    if not processes.supported():
        return "private nodes need Linux"
    if environ.get("FLMQ_RABBITMQ_SERVER"):
        # Named on purpose: if it does not work, that is to be said, not passed over.
        return find_programs(environ)
    try:
        return find_programs(environ)
    except NotInstalled as error:
        return error.reason
