"""Loopback ports for a private node.

They are chosen below the range that Linux assigns automatically (32768 and up), so that a node that
is briefly down does not lose its port to some outgoing connection.
"""

from __future__ import annotations

import dataclasses
import random
import socket
from dataclasses import dataclass

from flmq.common.errors import BrokerNotFound

__all__ = ["LOOPBACK", "NodePorts", "free_ports", "is_free"]

_LOWEST, _HIGHEST = 20000, 32000
LOOPBACK = "127.0.0.1"
"""The only address that a private node listens on."""


@dataclass(frozen=True, slots=True)
class NodePorts:
    """The loopback ports of a node."""

    amqp: int
    distribution: int
    epmd: int
    management: int
    amqps: int

    def busy(self) -> list[int]:
        """Return the ports that are in use now."""
        ports = dataclasses.astuple(self)
        return [port for port in ports if not is_free(port)]


def free_ports() -> NodePorts:
    """Choose five different free ports. They are not reserved: use them soon, or choose again."""
    # System randomness: two processes with the same seed must not choose the same ports.
    candidates = random.SystemRandom().sample(range(_LOWEST, _HIGHEST), 400)
    chosen = [port for port in candidates if is_free(port)][:5]
    if len(chosen) < 5:
        raise BrokerNotFound(
            f"no free port between {_LOWEST} and {_HIGHEST} on {LOOPBACK} for a private RabbitMQ "
            "node: end what holds them, or give a broker's URL (FLMQ_BROKER_URL)"
        )
    return NodePorts(*chosen)


def is_free(port: int) -> bool:
    """Return whether a server could listen on loopback ``port`` now."""
    with socket.socket() as probe:
        # As Erlang's listeners do: lingering connections of the last listener are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
