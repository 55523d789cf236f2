"""What compression of updates saves and costs, on models that really train.

Federated averaging of the digits, all clients every round; each client's update goes through the
codec against the round's model, as it would on the wire. Prints a Markdown table a model.
Speeds are medians over all updates, in bytes of ``.npy`` a second of one core's time. One of the
360 test images is 0.0028 of accuracy.

The larger model learns at a rate of 0.1. At the 0.5 of ``flmq demo`` its training falls apart in
round 9 with no codec at all, and noise of a millionth of an update decides how far: no measure of
a codec.

Run: ``python benchmarks/compression.py [--rounds N] [--seed N]``; under a minute on one core.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from flmq.cli.demo import digits
from flmq.cli.demo.digits import BATCH_SIZE, LOCAL_EPOCHS
from flmq.common import NDArrays, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.typing import NDArray, Parameters
from flmq.datasets.digits import client_shard, load_digits
from flmq.wire.codecs import CODECS, Codec, get_codec

NUM_CLIENTS = 10


@dataclass(frozen=True, slots=True)
class Task:
    """A model to train, and how."""

    widths: tuple[int, ...]
    learning_rate: float
    rounds: int
    seed: int


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
    parser.add_argument("--seed", type=int, default=42, help="of data and training (default: 42)")
    given = parser.parse_args()
    tasks = (
        Task((64, 10), 0.5, given.rounds, given.seed),
        Task((64, 512, 512, 10), 0.1, given.rounds, given.seed),
    )
    started = time.perf_counter()
    # Batches are so small that BLAS's threads would wait for each other, and disturb the clock.
    with threadpool_limits(1):
        for task in tasks:
            show(task, [train(name, task) for name in CODECS])
    print(f"\n{time.perf_counter() - started:.0f} s in all")


def train(name: str, task: Task) -> Run:
    """Federated averaging with every update encoded and decoded."""
    codec, tally, model = get_codec(name), Tally(), initial(task)
    shards = [
        client_shard(NUM_CLIENTS, "dirichlet", task.seed, index, 0.5)
        for index in range(NUM_CLIENTS)
    ]
    examples = sum(len(labels) for _, labels in shards)
    for server_round in range(task.rounds):
        base = ndarrays_to_parameters(model)
        sums = [np.zeros(tensor.shape) for tensor in model]
        for index, (images, labels) in enumerate(shards):
            rng = np.random.default_rng([task.seed, index, server_round])
            update = fit(model, images, labels, rng, task.learning_rate)
            received = parameters_to_ndarrays(sent(codec, update, base, tally))
            measure(tally, model, update, received)
            for total, tensor in zip(sums, received, strict=True):
                total += len(labels) * tensor.astype(np.float64)
        model = [(total / examples).astype(np.float32) for total in sums]
    return Run(name, tally, accuracy(model, task.seed), ndarrays_to_parameters(model))


def fit(
    model: NDArrays, images: NDArray, labels: NDArray, rng: np.random.Generator, rate: float
) -> NDArrays:
    """A client's epochs of SGD on the mean cross-entropy, from ``model``, in float32."""
    trained = [tensor.copy() for tensor in model]
    for _ in range(LOCAL_EPOCHS):
        order = rng.permutation(len(labels))
        for start in range(0, len(order), BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            slopes = digits.gradients(trained, images[batch], labels[batch])
            for tensor, slope in zip(trained, slopes, strict=True):
                tensor -= np.float32(rate) * slope
    return trained


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


def initial(task: Task) -> NDArrays:
    """Weights (in, out) by He's draw and biases (out,) of each layer, float32."""
    rng = np.random.default_rng(task.seed)
    model: NDArrays = []
    for inputs, outputs in pairwise(task.widths):
        draw = np.sqrt(2 / inputs) * rng.standard_normal((inputs, outputs))
        model += [draw.astype(np.float32), np.zeros(outputs, np.float32)]
    return model


def accuracy(model: NDArrays, seed: int) -> float:
    """On the test digits that no client holds."""
    held_out = load_digits(seed)
    return digits.measure(model, held_out.test_images, held_out.test_labels)[1]


def show(task: Task, runs: list[Run]) -> None:
    """Print the table of one model."""
    name = "-".join(map(str, task.widths))
    print(f"\n### {name}, float32, {task.rounds} rounds of {NUM_CLIENTS} clients\n")
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
