"""The links between sites: wires between network namespaces, or proxies where there can be none.

A namespace is held by an open file of this process, and by processes that were started inside. It
has no name, and its wires end with it: whatever kills the tests leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from tests.proxy import Proxy

__all__ = ["AMQP_PORT", "Link", "Namespace", "ProxiedLink", "Traffic", "Wire", "namespaces_work"]

AMQP_PORT = 5672
"""Where a broker in a namespace of its own listens for other sites."""
_CLONE_NEWNET = 0x40000000
_MTU = 1500
_FASTEST = 125e6
"""Bytes/s, each way: a gigabit. Faster, the kernel's own queues lose packets."""
_OWN = "/proc/thread-self/ns/net"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes over a link since it was made, both ways."""

    down: int
    """From the parent to the child."""
    up: int

    def since(self, before: Traffic) -> Traffic:
        """What came after ``before``."""
        return Traffic(self.down - before.down, self.up - before.up)


class Link(Protocol):
    """The way between the broker of a site and the one of its parent."""

    def cut(self) -> None:
        """Let nothing through, and tell nobody."""

    def mend(self) -> None:
        """Let everything through again, as slow as `slow` had it."""

    def slow(self, rate: float | None, delay: float = 0.0) -> None:
        """Let ``rate`` bytes/s through each way, ``delay`` s late; None: as it was made."""

    def bytes(self) -> Traffic:
        """What went over it: on a wire with the headers of every packet."""

    def close(self) -> None:
        """Have it no more."""


class Namespace:
    """A network of one's own, loopback up, for as long as this or a process inside is there."""

    def __init__(self) -> None:
        """Make one.

        Raises:
            OSError: this process may not, or the kernel cannot.
        """
        # The thread ends with the pool: the namespace is then nobody's but the file's.
        with ThreadPoolExecutor(1, "namespace") as pool:
            self.file = pool.submit(_unshared).result()
        try:
            self.run("ip", "link", "set", "lo", "up")
        except BaseException:
            os.close(self.file)
            raise

    @property
    def path(self) -> str:
        """What other programs know it by."""
        return f"/proc/{os.getpid()}/fd/{self.file}"

    def command(self, argv: Sequence[str]) -> list[str]:
        """A command that runs ``argv`` inside, with the pid of its own process."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(self, *argv: str) -> str:
        """Run a command inside, which must succeed; what it prints."""
        done = subprocess.run(self.command(argv), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Have this thread inside, and the threads, sockets and processes that it begins there."""
        before = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self.file)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(before)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.file)


class Wire:
    """A pair of interfaces, one in the parent's namespace and one in the child's.

    Every packet is one that an Ethernet could carry, so that counted bytes are those of a network.
    """

    def __init__(self, number: int, parent: Namespace, child: Namespace) -> None:
        """Lay it; ``number`` is the child's own, 1 to 200, and gives addresses and names."""
        self.parent_host, self.child_host = f"10.213.{number}.1", f"10.213.{number}.2"
        self._ends = ((parent, f"down{number}"), (child, f"up{number}"))
        (_, down), (_, up) = self._ends
        options = ("mtu", str(_MTU), "gso_max_segs", "1")
        parent.run(
            *("ip", "link", "add", "name", down, *options, "type", "veth"),
            *("peer", "name", up, *options, "netns", child.path),
        )
        for (space, name), host in zip(
            self._ends, (self.parent_host, self.child_host), strict=True
        ):
            space.run("ip", "address", "add", f"{host}/30", "dev", name)
            space.run("ip", "link", "set", "dev", name, "up")
        self.slow(None)

    def cut(self) -> None:
        """Take the link down at the parent's end."""
        space, name = self._ends[0]
        space.run("ip", "link", "set", "dev", name, "down")

    def mend(self) -> None:
        """Take it up again; addresses stayed."""
        space, name = self._ends[0]
        space.run("ip", "link", "set", "dev", name, "up")

    def slow(self, rate: float | None, delay: float = 0.0) -> None:
        """By the kernel; delays need its netem, which `OSError` says is missing."""
        bits = f"{8 * (_FASTEST if rate is None else rate):.0f}bit"
        how = ("tbf", "rate", bits, "burst", "128kb", "latency", "200ms")
        if delay:
            how = ("netem", "limit", "10000", "delay", f"{1000 * delay:g}ms", "rate", bits)
        for space, name in self._ends:
            space.run("tc", "qdisc", "replace", "dev", name, "root", *how)

    def bytes(self) -> Traffic:
        """As the kernel counts them at the parent's interface."""
        space, name = self._ends[0]
        (found,) = json.loads(space.run("ip", "-s", "-j", "link", "show", "dev", name))
        return Traffic(found["stats64"]["tx"]["bytes"], found["stats64"]["rx"]["bytes"])

    def close(self) -> None:
        """Nothing: it ends with its namespaces."""


class ProxiedLink:
    """Two proxies on loopback: one before each broker, for the other's connections."""

    def __init__(self, parent_port: int, child_port: int) -> None:
        """Stand before the brokers at these ports of 127.0.0.1."""
        self.to_parent = Proxy("127.0.0.1", parent_port)
        self.to_child = Proxy("127.0.0.1", child_port)

    def cut(self) -> None:
        """Break every connection and let none in."""
        for proxy in (self.to_parent, self.to_child):
            proxy.refuse()

    def mend(self) -> None:
        """Let connections in again."""
        for proxy in (self.to_parent, self.to_child):
            proxy.accept()

    def slow(self, rate: float | None, delay: float = 0.0) -> None:
        """So many bytes/s for each connection."""
        for proxy in (self.to_parent, self.to_child):
            proxy.throttle(rate)
            proxy.delay(delay)

    def bytes(self) -> Traffic:
        """Without the headers of packets."""
        return Traffic(
            down=self.to_parent.to_client_bytes + self.to_child.to_broker_bytes,
            up=self.to_parent.to_broker_bytes + self.to_child.to_client_bytes,
        )

    def close(self) -> None:
        """Break what is left."""
        for proxy in (self.to_parent, self.to_child):
            proxy.__exit__()


@functools.cache
def namespaces_work() -> bool:
    """Whether two namespaces with a wire between them can be had: root, Linux, iproute2."""
    if os.name != "posix" or not all(map(shutil.which, ("ip", "tc", "nsenter"))):
        return False
    try:
        with contextlib.ExitStack() as stack:
            two = []
            for _ in range(2):
                two.append(Namespace())
                stack.callback(two[-1].close)
            Wire(1, *two)
    except OSError:
        return False
    return True


def _unshared() -> int:
    if _libc().unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "this process may make no network namespace")
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def _enter(file: int) -> None:
    if _libc().setns(file, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter a network namespace")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
