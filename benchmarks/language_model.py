"""Clients with a language model in bfloat16: 32 layers of named tensors, 4 GB in all.

Shows that such a model goes round, and what it takes. Run it with::

    python -m benchmarks.language_model [--megabytes 4000] [--clients 2] [--rounds 2]

Each client returns the model that it got, as the bytes that came, so that it takes no memory of its
own beside the model, which the clients of a machine share in a folder. Printed are the server's
memory above idle, beside what it should be at most: the exact sum (8 bytes a number) and three of
the largest tensor. In all it needs eight times the size of the model, of memory and of disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from math import isqrt
from pathlib import Path

import numpy as np

from flmq.broker.find import obtain_broker
from flmq.client import Client, ClientContext
from flmq.common import Code, FitIns, FitRes, Parameters, Status, ndarray_to_bytes
from flmq.common.parameter import named_like
from flmq.observe.events import RoundClosed, RunEvent
from flmq.server import ServerConfig, start_server
from flmq.server.strategy import FedAvg
from flmq.wire import kept_parameters

_ROOT = Path(__file__).resolve().parent.parent
_LAYERS = 32
_NUMBER, _SUM = 2, 8
"""Bytes of a bfloat16, and of what is added up for it."""


def memory(field: str) -> int:
    """Return bytes of one line of this process's status (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def shapes(megabytes: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes, as a Llama has them, of so many bytes in bfloat16."""
    # 32 layers of 12 h^2 numbers, and two tables of 16 h^2: 416 h^2 in all.
    width = isqrt(megabytes * 1_000_000 // _NUMBER // 416)
    yield "model.embed_tokens.weight", (16 * width, width)
    for layer in range(_LAYERS):
        at = f"model.layers.{layer}"
        for name in "qkvo":
            yield f"{at}.self_attn.{name}_proj.weight", (width, width)
        yield f"{at}.mlp.gate_proj.weight", (3 * width, width)
        yield f"{at}.mlp.up_proj.weight", (3 * width, width)
        yield f"{at}.mlp.down_proj.weight", (width, 2 * width)
        yield f"{at}.input_layernorm.weight", (width,)
    yield "lm_head.weight", (16 * width, width)


def model(megabytes: int) -> Parameters:
    """Make it, one tensor at a time."""
    rng = np.random.default_rng(0)
    named = dict(shapes(megabytes))
    made = kept_parameters(
        ndarray_to_bytes((0.02 * rng.standard_normal(shape, np.float32)).astype("bfloat16"))
        for shape in named.values()
    )
    return named_like(made, Parameters([b""] * len(named), "", tuple(named)))


class Echo(Client):
    """Returns what came."""

    def fit(self, ins: FitIns) -> FitRes:
        """Return the model as it is."""
        return FitRes(Status(Code.OK, "Success"), ins.parameters, 100, {})


def client(context: ClientContext) -> Client:
    """Return a client, for ``flmq client``."""
    return Echo()


def serve(url: str, megabytes: int, clients: int, rounds: int) -> None:
    """Run the job, and print its rounds and memory."""
    idle = memory("VmRSS")
    closed: list[RoundClosed] = []

    def watch(event: RunEvent) -> None:
        if isinstance(event, RoundClosed):
            closed.append(event)

    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=model(megabytes),
    )
    start_server(
        server_address=url, strategy=strategy, config=ServerConfig(rounds), observers=[watch]
    )
    sizes = [int(np.prod(shape)) for _, shape in shapes(megabytes)]
    result = {
        "rounds": [round(each.seconds, 2) for each in closed],
        "accepted": [each.fit.accepted for each in closed],
        "changed": [each.changed for each in closed],
        "model MB": sum(sizes) * _NUMBER // 10**6,
        "server MB above idle": (memory("VmHWM") - idle) // 10**6,
        "to be at most MB": (sum(sizes) * _SUM + 3 * max(sizes) * _NUMBER) // 10**6,
    }
    print(json.dumps(result))


def main() -> None:
    """Start a broker if none is given, the clients and the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=4000, help="of the model")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = (options.megabytes, options.clients, options.rounds)
    if options.serve is not None:
        serve(options.serve, *size)
        return
    with tempfile.TemporaryDirectory() as folder, obtain_broker() as broker:
        started = []
        try:
            for number in range(options.clients):
                command = [
                    sys.executable,
                    "-m",
                    "flmq",
                    "client",
                    "benchmarks.language_model:client",
                ]
                command += ["--client-id", f"client-{number}", "--once", "--cache-dir", folder]
                command += ["--broker", broker.url]
                started.append(subprocess.Popen(command, cwd=_ROOT))
            command = [sys.executable, "-m", "benchmarks.language_model"]
            command += ["--serve", broker.url]
            for name, value in zip(("megabytes", "clients", "rounds"), size, strict=True):
                command += [f"--{name}", str(value)]
            subprocess.run(command, cwd=_ROOT, check=True)
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait()


if __name__ == "__main__":
    main()
