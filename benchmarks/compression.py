"""What compression of updates saves and costs, on models that really train.

Federated averaging of the digits, all clients every round; each client's update goes through the
codec against the round's model, as it would on the wire. Prints a Markdown table a model.
Speeds are medians over all updates, in bytes of ``.npy`` a second of one core's time. One of the
360 test images is 0.0028 of accuracy.

Run: ``python benchmarks/compression.py [--rounds N]``; under a minute on one core.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from flmq.cli.digits import DigitsClient, DigitsSettings, strategy
from flmq.common import NDArrays, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.typing import Parameters
from flmq.wire.codecs import CODECS, Codec, get_codec

SOFTMAX, MLP = (64, 10), (64, 512, 512, 10)
SETTINGS = DigitsSettings(num_partitions=10, partition="dirichlet", alpha=0.5, seed=42)


@dataclass(slots=True)
class Tally:
    """What one codec did to all updates of a run."""

    raw_bytes: int = 0
    encoded_bytes: int = 0
    encode_speeds: list[float] = field(default_factory=list)
    decode_speeds: list[float] = field(default_factory=list)
    max_errors: list[float] = field(default_factory=list)
    error_norms: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Run:
    """How a run with one codec went."""

    codec: str
    tally: Tally
    accuracy: float
    model: Parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="of each model (default: 10)")
    rounds = parser.parse_args().rounds
    started = time.perf_counter()
    clients = [DigitsClient(SETTINGS, index) for index in range(SETTINGS.num_partitions)]
    # Batches are so small that BLAS's threads would wait for each other, and disturb the clock.
    with threadpool_limits(1):
        for widths in (SOFTMAX, MLP):
            show(widths, rounds, [train(name, widths, rounds, clients) for name in CODECS])
    print(f"{time.perf_counter() - started:.0f} s in all")


def train(name: str, widths: tuple[int, ...], rounds: int, clients: list[DigitsClient]) -> Run:
    """Federated averaging with every update encoded and decoded."""
    codec, tally = get_codec(name), Tally()
    model = initial(widths)
    for server_round in range(1, rounds + 1):
        base = ndarrays_to_parameters(model)
        sums = [np.zeros(tensor.shape) for tensor in model]
        examples = 0
        for client in clients:
            update, count, _ = client.fit(model, {"server_round": server_round})
            received = parameters_to_ndarrays(sent(codec, update, base, tally))
            measure(tally, model, update, received)
            examples += count
            for total, tensor in zip(sums, received, strict=True):
                total += count * tensor.astype(np.float64)
        model = [(total / examples).astype(np.float32) for total in sums]
    return Run(name, tally, accuracy(model), ndarrays_to_parameters(model))


def sent(codec: Codec, update: NDArrays, base: Parameters, tally: Tally) -> Parameters:
    """The update as it arrives."""
    tensors = ndarrays_to_parameters(update).tensors
    size = sum(map(len, tensors))
    begin = time.thread_time()
    encoded = codec.encode(tensors, base.tensors)
    middle = time.thread_time()
    decoded = codec.decode(encoded, base.tensors, max_bytes=size)
    end = time.thread_time()
    tally.raw_bytes += size
    tally.encoded_bytes += sum(map(len, encoded))
    tally.encode_speeds.append(size / (middle - begin) / 1e6)
    tally.decode_speeds.append(size / (end - middle) / 1e6)
    return Parameters(decoded, base.tensor_type)


def measure(tally: Tally, model: NDArrays, update: NDArrays, received: NDArrays) -> None:
    """Add the largest error over the largest difference, and likewise of the norms."""
    flat = [
        np.concatenate([t.ravel() for t in ts]).astype(float) for ts in (model, update, received)
    ]
    difference, error = flat[1] - flat[0], flat[2] - flat[1]
    tally.max_errors.append(float(np.abs(error).max() / np.abs(difference).max()))
    tally.error_norms.append(float(np.linalg.norm(error) / np.linalg.norm(difference)))


def initial(widths: tuple[int, ...]) -> NDArrays:
    """Weights (in, out) by He's draw and biases (out,) of each layer, float32."""
    rng = np.random.default_rng(SETTINGS.seed)
    model: NDArrays = []
    for inputs, outputs in pairwise(widths):
        draw = np.sqrt(2 / inputs) * rng.standard_normal((inputs, outputs))
        model += [draw.astype(np.float32), np.zeros(outputs, np.float32)]
    return model


def accuracy(model: NDArrays) -> float:
    """On the test digits that no client holds."""
    result = strategy(SETTINGS, 1, 0.0).evaluate(0, ndarrays_to_parameters(model))
    assert result is not None
    return float(result[1]["accuracy"])


def show(widths: tuple[int, ...], rounds: int, runs: list[Run]) -> None:
    """Print the table of one model."""
    name = "-".join(map(str, widths))
    print(f"\n### {name}, {rounds} rounds of {SETTINGS.num_partitions} clients, float32\n")
    print(
        "| codec | ratio | encode MB/s | decode MB/s | max error / max update | "
        "error norm / update norm | accuracy | final model |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    for run in runs:
        tally = run.tally
        same = "same bits" if run.model == runs[0].model else "other bits"
        print(
            f"| {run.codec} | {tally.raw_bytes / tally.encoded_bytes:.2f} "
            f"| {speed(run, tally.encode_speeds)} | {speed(run, tally.decode_speeds)} "
            f"| {max(tally.max_errors):.1e} | {max(tally.error_norms):.1e} "
            f"| {run.accuracy:.4f} | {same} |"
        )


def speed(run: Run, speeds: list[float]) -> str:
    """The median; of "none", which does nothing, nothing."""
    return "-" if run.codec == "none" else f"{median(speeds):.0f}"


if __name__ == "__main__":
    main()
