"""Who is compared: how each contestant's server and clients are started, and what each needs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.cells import Cell
from flmq.common.urls import parse_broker_url

__all__ = [
    "CERTIFIED_URL",
    "CONTESTANTS",
    "FLWR_PYTHON",
    "IN_ROUNDS",
    "KEYS",
    "ON_MEMORY",
    "TLS_URL",
    "VHOSTS",
    "Contestant",
    "NotAvailable",
    "flower_python",
    "flower_version",
]

FLWR_PYTHON = "FLMQ_BENCH_FLWR_PYTHON"
"""The environment variable that names another Python, where flwr is installed."""

VHOSTS = ("flmq", "flmq-tls", "flmq-tls-certified", "flmq-e2e", "flmq-tls-e2e")
"""The contestants of `benchmarks.sealed`, and their virtual hosts."""
TLS_URL, KEYS = "FLMQ_BENCH_TLS_URL", "FLMQ_BENCH_KEYS"
"""Set by `benchmarks.sealed`: the broker's URL by TLS, and the folder of keys."""
CERTIFIED_URL = "FLMQ_BENCH_CERTIFIED_URL"
"""Likewise: the URL by TLS and a certificate each on a provisioned virtual host; {name} in it is
whose."""


class NotAvailable(Exception):
    """A contestant that cannot take part here; the text says what to do about it."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One of those compared."""

    name: str
    label: str
    """For tables and pictures."""
    on_broker: bool
    """Whether it goes over RabbitMQ; else it has a port of its own."""
    command: Callable[[str], list[str]]
    """The command of its "server" or "client", without what depends on the cell."""
    needs: Callable[[Cell], int]
    """Bytes of memory that server and clients may take at their peak, by experience."""
    over_tls: bool = False
    """Whether it connects by the URL in `TLS_URL`."""
    keys: bool = False
    """Whether server and clients have keys, in the folder that `KEYS` names."""
    certified: bool = False
    """Whether each connects by its own certificate, by the URL in `CERTIFIED_URL`."""

    def server(self, cell: Cell, rounds: int) -> list[str]:
        """Return the server's command."""
        return [
            *self.command("server"),
            f"--clients={cell.clients}",
            f"--model-bytes={cell.model_bytes}",
            f"--rounds={rounds}",
            *self._names(cell),
            *([f"--keys={os.environ[KEYS]}"] if self.keys else []),
        ]

    def client(self, cell: Cell, number: int) -> list[str]:
        """Return the command of client ``number``."""
        names = self._names(cell)
        own = [*names, f"--name={number}", f"--model-bytes={cell.model_bytes}"] if names else []
        if self.keys or self.certified:
            own = [f"--name={number}"]
        if self.keys:
            own.append(f"--keys={os.environ[KEYS]}")
        return [*self.command("client"), *own]

    def _names(self, cell: Cell) -> list[str]:
        """What bare pika's queues are called: of another cell's, none may be bound any more."""
        if not self.name.startswith("pika"):
            return []
        return [f"--prefix=bench.{self.name}.{cell.clients}x{cell.model_bytes}"]

    def address(self, broker_url: str) -> str:
        """Return where its server and clients meet.

        Those of `benchmarks.sealed` have a virtual host each: else they would share their clients.
        """
        if self.certified:
            return os.environ[CERTIFIED_URL]
        if self.name in VHOSTS and TLS_URL in os.environ:
            url = parse_broker_url(os.environ[TLS_URL] if self.over_tls else broker_url)
            return url.with_vhost(self.name).full
        return broker_url if self.on_broker else f"127.0.0.1:{_free_port()}"


def flower_version() -> str | None:
    """Return the version of flwr that would be measured; None where there is none."""
    try:
        return _flower()[1]
    except NotAvailable:
        return None


def flower_python() -> str:
    """Return the Python that has flwr.

    Raises:
        NotAvailable: there is none.
    """
    return _flower()[0]


def _learning(
    python: Callable[[], str], library: str, strategy: str = "FedAvg"
) -> Callable[[str], list[str]]:
    return lambda role: [
        python(),
        "-m",
        f"benchmarks.contestants.learning_{role}",
        f"--library={library}",
        *([f"--strategy={strategy}"] if role == "server" else []),
    ]


def _pika(*options: str) -> Callable[[str], list[str]]:
    return lambda role: [
        sys.executable,
        "-m",
        f"benchmarks.contestants.pika_{role}",
        *options,
    ]


def _flower() -> tuple[str, str]:
    """The Python that has flwr, and flwr's version."""
    python = os.environ.get(FLWR_PYTHON, sys.executable)
    try:
        version = subprocess.run(
            [python, "-c", "from importlib.metadata import version as v; print(v('flwr'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        raise NotAvailable(
            f"{python} has no flwr: pip install 'flmq[bench]', or name a Python that has flwr 1.41 "
            f"in {FLWR_PYTHON}"
        ) from None
    return python, version


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _memory(
    server_once: float, server_each: float, client: float, program: int
) -> Callable[[Cell], int]:
    """Models in the server, and more for each client; models in a client; bytes of a process."""

    def needs(cell: Cell) -> int:
        models = server_once + cell.clients * (server_each + client)
        return int(models * cell.model_bytes + (cell.clients + 1) * program)

    return needs


CONTESTANTS: dict[str, Contestant] = {
    each.name: each
    for each in (
        Contestant(
            "flmq",
            "flmq",
            True,
            _learning(lambda: sys.executable, "flmq"),
            _memory(6, 0, 3.5, 60_000_000),
        ),
        *(
            Contestant(
                f"flmq-{strategy.lower()}",
                f"flmq, {strategy}",
                True,
                _learning(lambda: sys.executable, "flmq", strategy),
                _memory(9, 0, 3.5, 60_000_000),
            )
            for strategy in ("FedAdam", "FedMedian")
        ),
        *(
            Contestant(
                "flmq" + "-tls" * over_tls + "-certified" * certified + "-e2e" * keys,
                "flmq" + ", TLS" * over_tls + ", certificates" * certified + ", --e2e" * keys,
                True,
                _learning(lambda: sys.executable, "flmq"),
                _memory(6, 0, 3.5, 60_000_000),
                over_tls,
                keys,
                certified,
            )
            for over_tls, keys, certified in (
                (True, False, False),
                (True, False, True),
                (False, True, False),
                (True, True, False),
            )
        ),
        Contestant(
            "flower",
            "Flower gRPC",
            False,
            _learning(flower_python, "flwr"),
            _memory(1, 8, 17, 120_000_000),
        ),
        Contestant("pika", "bare pika", True, _pika(), _memory(0, 0, 1, 40_000_000)),
        Contestant(
            "pika-tuned",
            "bare pika, tuned",
            True,
            _pika("--tuned"),
            _memory(0, 0, 1, 60_000_000),
        ),
    )
}

ON_MEMORY = ("flmq", "flmq-fedadam", "flmq-fedmedian", "flower")
"""Those whose server's memory is looked at."""
IN_ROUNDS = ("flmq", "flower", "pika", "pika-tuned")
"""Those whose rounds are timed."""
