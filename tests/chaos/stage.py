"""The broker of the chaos runs, the network before it, and what can be done to both."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

from flmq.broker.layout import MANAGEMENT_PLUGIN
from flmq.broker.node import PrivateNode
from flmq.common.errors import BrokerError, BrokerRefusal, ResourceLocked
from flmq.common.urls import BrokerUrl, parse_broker_url
from flmq.transport import federation_topology, open_transport
from tests.proxy import Proxy

__all__ = ["Stage", "patiently", "queue_depths", "through"]

_HEARTBEAT = 2
"""Seconds, of AMQP: a half-open connection is noticed after two of them."""
_MANAGEMENT_SECONDS = 30.0
_NORMAL_WATERMARK = "0.4"

T = TypeVar("T")


class Stage:
    """One RabbitMQ node behind a proxy, for many runs, each on a virtual host of its own."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        """Prepare, with lines of rabbitmq.conf in ``settings``; a context manager."""
        self._node = PrivateNode(plugins=(MANAGEMENT_PLUGIN,), settings=settings)
        self._vhost = ""
        self._alarm = False
        self._strict = False

    def __enter__(self) -> Stage:
        self._node.start()
        address = parse_broker_url(self._node.url)
        self._proxy = Proxy(address.host, address.port)
        # RabbitMQ 3.10 loses its stream coordinator for good when it is killed before the table
        # that names it has been written, within a second of the first stream ever.
        with open_transport(self._node.url) as transport:
            transport.declare(federation_topology())
        self._node.evaluate("[dets:sync(T) || T <- dets:all()].")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._proxy.__exit__()
        self._node.stop(timeout=2.0)

    @property
    def url(self) -> str:
        """Where processes go: through the proxy."""
        return through(self._proxy.port, parse_broker_url(self.direct_url))

    @property
    def direct_url(self) -> str:
        """Where witnesses go."""
        return parse_broker_url(self._node.url).with_vhost(self._vhost).full

    @property
    def node(self) -> PrivateNode:
        """The node itself."""
        return self._node

    def set(self) -> None:
        """Give the next run a virtual host of its own."""
        self._vhost = f"run-{secrets.token_hex(4)}"
        patiently(lambda: self._node.management.add_vhost(self._vhost))

    def placed(self, member: str, argv: Sequence[str]) -> Sequence[str]:
        """The command of a process: all share one machine."""
        return argv

    def clear(self) -> None:
        """End every disturbance, and remove the run's virtual host."""
        self.calm()
        patiently(lambda: self._node.management.delete_vhost(self._vhost))

    # -- disturbances ------------------------------------------------------------------------

    def cut(self) -> None:
        """Break every connection."""
        self._proxy.cut()

    def freeze(self, *, to_client: bool, to_broker: bool) -> None:
        """Make every present connection half-open: no byte arrives, nothing fails."""
        self._proxy.freeze(to_client=to_client, to_broker=to_broker)

    def thaw(self) -> None:
        """Let what was held back flow, on connections that are still there."""
        self._proxy.thaw()

    def delay(self, seconds: float) -> None:
        """Have every byte arrive later."""
        self._proxy.delay(seconds)

    def throttle(self, bytes_per_second: float | None) -> None:
        """Make every connection slow."""
        self._proxy.throttle(bytes_per_second)

    def refuse(self) -> None:
        """Break every connection and let none in."""
        self._proxy.refuse()

    def accept(self) -> None:
        """Let connections in again."""
        self._proxy.accept()

    def close_connections(self) -> None:
        """Have the broker close every connection, as an operator may."""
        self._node.ctl("close_all_connections", "-p", self._vhost, "chaos")

    def raise_alarm(self) -> None:
        """Have the broker run out of memory: it holds publishers back."""
        self._alarm = True
        self._node.ctl("set_vm_memory_high_watermark", "0.000001")

    def end_alarm(self) -> None:
        """Let it have memory again."""
        self._node.ctl("set_vm_memory_high_watermark", _NORMAL_WATERMARK)
        self._alarm = False

    def kill_broker(self) -> None:
        """Kill the node as a crash would, and bring it back with its data."""
        self._node.kill()
        self._alarm = False
        try:
            self._node.start()
        except BrokerError:
            # Now and then RabbitMQ's script ends without a word so soon after a kill.
            self._node.start()

    def delete_queue(self, name: str) -> None:
        """Delete a queue or stream under whoever uses it; one that is not there is no matter."""
        path = f"/api/queues/{quote(self._vhost, safe='')}/{quote(name, safe='')}"
        with contextlib.suppress(BrokerError):
            self._node.management.call("DELETE", path)

    @property
    def blocked(self) -> bool:
        """Whether the broker takes no messages just now."""
        return self._alarm

    def set_policy(self) -> None:
        """Have every queue drop what is older than 5 s, and all but one message."""
        dropping = {"message-ttl": 5000, "max-length": 1}
        body = {"pattern": ".*", "definition": dropping, "apply-to": "queues"}
        patiently(lambda: self._node.management.call("PUT", self._policy, body))
        self._strict = True

    def end_policy(self) -> None:
        """Let queues keep what they get."""
        patiently(self._delete_policy)
        self._strict = False

    def _delete_policy(self) -> None:
        try:
            self._node.management.call("DELETE", self._policy)
        except BrokerRefusal as refusal:
            # A broker that was killed a moment after it took the policy may have lost it.
            if "(404)" not in str(refusal):
                raise

    @property
    def _policy(self) -> str:
        return f"/api/policies/{quote(self._vhost, safe='')}/chaos"

    def calm(self) -> None:
        """End every disturbance that lasts."""
        self._proxy.thaw()
        self._proxy.delay(0.0)
        self._proxy.throttle(None)
        if self._alarm:
            self.end_alarm()
        if self._strict:
            self.end_policy()

    # -- looking -----------------------------------------------------------------------------

    def depths(self, names: Sequence[str]) -> dict[str, int]:
        """Messages that are ready in each of these queues that exists."""
        return queue_depths(self.direct_url, names)

    def queues(self) -> dict[str, int]:
        """Every queue of this run, and how many messages are ready in it."""
        path = f"/api/queues/{quote(self._vhost, safe='')}?columns=name"
        return self.depths([queue["name"] for queue in self._node.management.call("GET", path)])


def queue_depths(url: str, names: Sequence[str]) -> dict[str, int]:
    """Messages that are ready in each of these queues that exists at ``url``."""
    found = {}
    with open_transport(url, name="witness") as witness:
        for name in names:
            try:
                info = witness.inspect_queue(name)
            except ResourceLocked:
                found[name] = 0  # a job's lock: nobody but its server may look at it
            else:
                if info is not None:
                    found[name] = info.messages_ready
    return found


def through(port: int, address: BrokerUrl) -> str:
    """URL of ``address`` by way of a proxy's ``port``, with heartbeats that soon notice."""
    return (
        f"amqp://{address.user}:{quote(address.password, safe='')}@127.0.0.1:{port}/"
        f"{quote(address.vhost, safe='')}?heartbeat={_HEARTBEAT}"
    )


def patiently(call: Callable[[], T]) -> T:
    """Make a call to the management API, which is there a little later than its node."""
    deadline = time.monotonic() + _MANAGEMENT_SECONDS
    while True:
        try:
            return call()
        except BrokerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
