"""The links that other tests rely on: they cut, slow and count, and nothing of them is left."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest

from tests.sites.networks import Namespace, ProxiedLink, Traffic, Wire, namespaces_work
from tests.training import wait_until

_BYTES = 1_000_000


@pytest.fixture
def spaces() -> Iterator[tuple[Namespace, Namespace]]:
    if not namespaces_work():
        pytest.skip("needs network namespaces: root, Linux and iproute2 (ip, tc)")
    parent, child = Namespace(), Namespace()
    yield parent, child
    parent.close()
    child.close()


def _sink(space: Namespace, host: str) -> socket.socket:
    """A server that takes all it is sent."""
    with space.inside():
        server = socket.create_server((host, 0))
    threading.Thread(target=_swallow, args=[server], daemon=True).start()
    return server


def _swallow(server: socket.socket) -> None:
    with server, server.accept()[0] as taken:
        while taken.recv(1 << 16):
            pass
        taken.sendall(b".")


def _send(space: Namespace, address: tuple[str, int]) -> float:
    """Send a megabyte and hear that it came; the seconds that took."""
    with space.inside(), socket.create_connection(address, timeout=10) as client:
        started = time.monotonic()
        client.sendall(bytes(_BYTES))
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b"."
        return time.monotonic() - started


def test_a_wire_counts_every_header(spaces: tuple[Namespace, Namespace]) -> None:
    parent, child = spaces
    wire = Wire(1, parent, child)
    server = _sink(child, wire.child_host)
    before = wire.bytes()
    _send(parent, server.getsockname())
    went = wire.bytes().since(before)
    # 1,448 bytes of data in a packet of 1,514.
    assert 1.045 * _BYTES < went.down < 1.06 * _BYTES
    assert went.up < 0.1 * _BYTES


def test_a_wire_is_cut_and_mended(spaces: tuple[Namespace, Namespace]) -> None:
    parent, child = spaces
    wire = Wire(1, parent, child)
    server = _sink(parent, wire.parent_host)
    wire.cut()
    with child.inside(), socket.socket() as client:
        client.settimeout(0.3)
        # At once where the route went with the link, else when the time is over.
        assert client.connect_ex(server.getsockname()) != 0
    wire.mend()
    _send(child, server.getsockname())


def test_a_wire_is_slowed(spaces: tuple[Namespace, Namespace]) -> None:
    parent, child = spaces
    wire = Wire(1, parent, child)
    wire.slow(_BYTES / 0.5)
    assert _send(parent, _sink(child, wire.child_host).getsockname()) > 0.4
    wire.slow(None)
    _send(parent, _sink(child, wire.child_host).getsockname())


def test_a_killed_process_leaves_no_namespace(spaces: tuple[Namespace, Namespace]) -> None:
    """What a child of it had seen is gone with it, by the kernel's own account."""
    program = """
        import os, signal
        from tests.sites.networks import Namespace, Wire
        two = Namespace(), Namespace()
        Wire(1, *two)
        for each in two:
            print(os.fstat(each.file).st_ino)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-uc", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    inodes = done.stdout.split()
    assert done.returncode == -9
    assert len(inodes) == 2
    listed = subprocess.run(["lsns", "-n", "-t", "net", "-o", "NS"], capture_output=True, text=True)
    assert not set(inodes) & set(listed.stdout.split())


def test_a_proxied_link_does_the_same_on_loopback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as parent:
        threading.Thread(target=_swallow, args=[parent], daemon=True).start()
        link = ProxiedLink(parent.getsockname()[1], 1)
        try:
            with socket.create_connection(("127.0.0.1", link.to_parent.port)) as client:
                client.sendall(bytes(_BYTES))
                wait_until(lambda: link.bytes() == Traffic(down=0, up=_BYTES), 10.0)
            link.cut()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", link.to_parent.port))
            link.mend()
            socket.create_connection(("127.0.0.1", link.to_parent.port)).close()
        finally:
            link.close()
