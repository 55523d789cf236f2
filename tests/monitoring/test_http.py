"""The port for scrapes and probes answers who asks well, and is not hurt by who does not."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from flmq.monitoring.errors import MetricsPortInUse
from flmq.monitoring.http import Answer, HttpServer
from tests.monitoring.scraping import get


def fails() -> Answer:
    raise RuntimeError("a bug")


@pytest.fixture
def server() -> Iterator[HttpServer]:
    made = HttpServer(
        "127.0.0.1",
        0,
        {"/healthz": lambda: Answer(200, b"alive\n"), "/bug": fails},
        patience=1.0,
    )
    yield made
    made.close()


def ask(server: HttpServer, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(data)
        said = b""
        while more := connection.recv(65536):
            said += more
    return said


def test_a_path_is_answered_and_others_are_named(server: HttpServer) -> None:
    assert get(f"{server.url}/healthz") == (200, "alive\n")
    assert get(f"{server.url}/healthz?verbose=1") == (200, "alive\n")
    status, text = get(f"{server.url}/")
    assert (status, "/healthz" in text) == (404, True)
    head = ask(server, b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\n\r\n")


def test_a_bug_in_an_answer_ends_nothing(server: HttpServer) -> None:
    assert get(f"{server.url}/bug")[0] == 500
    assert get(f"{server.url}/healthz")[0] == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /healthz HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n", b"405"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (b"GET /healthz\r\n\r\n", b"400"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"GET \xff\xfe%00 HTTP/1.1\r\n\r\n", b"404"),
    ],
)
def test_a_strange_request_is_refused(server: HttpServer, request_: bytes, status: bytes) -> None:
    assert ask(server, request_).split()[1] == status
    assert get(f"{server.url}/healthz")[0] == 200


def test_an_endless_head_is_cut(server: HttpServer) -> None:
    sent = 0
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection,
    ):
        for _ in range(10_000):
            connection.sendall(b"a" * 4096)
            sent += 4096
    assert sent < 10_000 * 4096
    assert get(f"{server.url}/healthz")[0] == 200


def test_who_says_nothing_is_dropped(server: HttpServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET /healthz")  # and no more
        assert connection.recv(100) == b""


def test_a_probe_comes_through_a_crowd_that_says_nothing() -> None:
    server = HttpServer("127.0.0.1", 0, {"/healthz": lambda: Answer(200, b"alive\n")})
    crowd = []
    try:
        before = threading.active_count()
        for _ in range(200):
            crowd.append(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            crowd[-1].sendall(b"GET /healthz HTTP/1.1\r\n")
        assert get(f"{server.url}/healthz") == (200, "alive\n")
        assert threading.active_count() - before < 64
    finally:
        for each in crowd:
            each.close()
        server.close()


def test_a_port_that_is_taken_is_named(server: HttpServer) -> None:
    with pytest.raises(MetricsPortInUse, match=f"port {server.port}: .*--metrics-port"):
        HttpServer("127.0.0.1", server.port, {})
    with pytest.raises(MetricsPortInUse, match="--metrics-address"):
        HttpServer("no such host.invalid", 0, {})


def test_a_port_is_free_again_when_it_is_closed(server: HttpServer) -> None:
    server.close()
    server.close()
    HttpServer("127.0.0.1", server.port, {}).close()
