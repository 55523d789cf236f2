"""The demo federation's app, as a user would write it: a model in numpy, a client, a server.

Ten clients each hold a part of scikit-learn's handwritten digits and together train one classifier
by FedAvg: softmax regression (650 parameters) or a multilayer perceptron 64-32-10 (2410). ``flmq
server flmq.cli.demo.digits:server`` and ``flmq client flmq.cli.demo.digits:client`` run it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.client import NumPyClient
from flmq.client.context import ClientContext
from flmq.common import Config, Metrics, NDArrays, Scalar, ndarrays_to_parameters
from flmq.common.errors import UsageError
from flmq.common.options import option
from flmq.datasets.digits import NUM_CLASSES, NUM_FEATURES, client_shard, load_digits
from flmq.datasets.partitioner import PARTITIONS
from flmq.server.context import ServerContext
from flmq.server.strategy import FedAvg

__all__ = [
    "MODELS",
    "DigitsClient",
    "DigitsSettings",
    "InvalidSettings",
    "client",
    "gradients",
    "initial_model",
    "measure",
    "server",
    "strategy",
]

LEARNING_RATE = 0.5
BATCH_SIZE = 32
LOCAL_EPOCHS = 5

MODELS: dict[str, tuple[int, ...]] = {
    "softmax": (NUM_FEATURES, NUM_CLASSES),
    "mlp": (NUM_FEATURES, 32, NUM_CLASSES),
}
"""Widths of a model's layers, from input to output."""

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


class InvalidSettings(UsageError):
    """A client's properties or the demo's options do not describe a digits federation."""


@dataclass(frozen=True, slots=True)
class DigitsSettings:
    """Settings on which server and clients of one federation must agree."""

    num_partitions: int = option(
        10, "Client processes.", names=("--clients",), at_least=1, at_most=200
    )
    partition: str = option("dirichlet", f"How the digits are dealt: {', '.join(PARTITIONS)}.")
    alpha: float = option(
        0.5, "Of the Dirichlet partition: smaller is more unequal.", at_least=0.01
    )
    seed: int = option(42, "Of data, model, training and kills.", at_least=0)
    model: str = option("softmax", f"What is trained: {' or '.join(MODELS)}.")

    def __post_init__(self) -> None:
        """Refuse an unknown model; the rest is checked where it is used."""
        if self.model not in MODELS:
            raise InvalidSettings(
                f"there is no model {self.model!r}: choose one of {', '.join(MODELS)}"
            )

    def properties(self, index: int) -> dict[str, Scalar]:
        """Return the properties of client ``index``, from which ``client`` recreates it."""
        return {**asdict(self), "partition_index": index}

    @classmethod
    def from_properties(cls, properties: Mapping[str, Scalar]) -> DigitsSettings:
        """Return the settings in a client's ``properties``, with defaults for missing ones."""
        return cls(
            num_partitions=_number(properties, "num_partitions", int, cls().num_partitions),
            partition=str(properties.get("partition", cls().partition)),
            alpha=_number(properties, "alpha", float, cls().alpha),
            seed=_number(properties, "seed", int, cls().seed),
            model=str(properties.get("model", cls().model)),
        )


class DigitsClient(NumPyClient):
    """Train on the digits of one partition; the same task gives the same bits every time."""

    def __init__(self, settings: DigitsSettings, index: int) -> None:
        """Load partition ``index`` of the training data."""
        self.seed = settings.seed
        self.index = index
        self.images, self.labels = client_shard(
            settings.num_partitions, settings.partition, settings.seed, index, settings.alpha
        )

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        """Train five epochs of SGD from ``parameters``, shuffled by (seed, client, round)."""
        server_round = int(config["server_round"])
        rng = np.random.default_rng([self.seed, self.index, server_round])
        model = [tensor.copy() for tensor in parameters]
        for _ in range(LOCAL_EPOCHS):
            order = rng.permutation(len(self.labels))
            for start in range(0, len(order), BATCH_SIZE):
                batch = order[start : start + BATCH_SIZE]
                _sgd_step(model, self.images[batch], self.labels[batch])
        loss, accuracy = measure(model, self.images, self.labels)
        return model, len(self.labels), {"train_loss": loss, "train_accuracy": accuracy}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        """Return loss and accuracy of ``parameters`` on the client's own digits."""
        loss, accuracy = measure(parameters, self.images, self.labels)
        return loss, len(self.labels), {"accuracy": accuracy}


def client(context: ClientContext) -> DigitsClient:
    """Create the client whose part of the data ``context.properties`` names.

    Properties: "partition_index" (int, required), and those of ``DigitsSettings``.
    """
    index = _number(context.properties, "partition_index", int, None)
    return DigitsClient(DigitsSettings.from_properties(context.properties), index)


def server(context: ServerContext) -> FedAvg:
    """Return FedAvg over all clients, evaluated after every round on held-out test digits.

    ``context.run_config``: the fields of ``DigitsSettings``, "min_clients" (int), the number of
    clients to wait for before a round, and "fraction_evaluate" (float), the share of clients that
    also evaluate each model on their own data.
    """
    config = context.run_config
    chosen = DigitsSettings.from_properties(config)
    needed = _number(config, "min_clients", int, chosen.num_partitions)
    return strategy(chosen, needed, _number(config, "fraction_evaluate", float, 0.0))


def strategy(chosen: DigitsSettings, needed: int, fraction_evaluate: float) -> FedAvg:
    """Return the strategy of `server`, from settings instead of a context."""
    digits = load_digits(chosen.seed)

    def evaluate(
        server_round: int, parameters: NDArrays, config: Config
    ) -> tuple[float, dict[str, Scalar]]:
        loss, accuracy = measure(parameters, digits.test_images, digits.test_labels)
        return loss, {"accuracy": accuracy}

    return FedAvg(
        fraction_fit=1.0,
        fraction_evaluate=fraction_evaluate,
        min_fit_clients=needed,
        min_evaluate_clients=needed,
        min_available_clients=needed,
        evaluate_fn=evaluate,
        on_fit_config_fn=lambda server_round: {"server_round": server_round},
        initial_parameters=ndarrays_to_parameters(initial_model(chosen)),
    )


def initial_model(settings: DigitsSettings) -> NDArrays:
    """Return weights (in, out) and biases (out,) of each layer, float32, drawn from the seed."""
    widths = MODELS[settings.model]
    rng = np.random.default_rng(settings.seed)
    model: NDArrays = []
    for inputs, outputs in pairwise(widths):
        # Softmax regression is convex: zero is as good a start as any. ReLU layers need He
        # initialization.
        scale = 0.0 if len(widths) == 2 else np.sqrt(2 / inputs)
        model.append((scale * rng.standard_normal((inputs, outputs))).astype(np.float32))
        model.append(np.zeros(outputs, dtype=np.float32))
    return model


def _forward(model: NDArrays, images: Images) -> tuple[list[Images], Images]:
    """Return the input of each layer, shape (n, width), and the logits, (n, NUM_CLASSES)."""
    inputs = [images]
    for weights, bias in zip(model[:-2:2], model[1:-2:2], strict=True):
        inputs.append(np.maximum(inputs[-1] @ weights + bias, 0))
    return inputs, inputs[-1] @ model[-2] + model[-1]


def _probabilities(logits: Images) -> Images:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Images = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def gradients(model: NDArrays, images: Images, labels: Labels) -> NDArrays:
    """Return the gradients of a batch's mean cross-entropy, one for each tensor, in float32."""
    inputs, logits = _forward(model, images)
    gradient = _probabilities(logits)
    gradient[np.arange(len(labels)), labels] -= 1
    gradient /= np.float32(len(labels))
    found: NDArrays = []
    for layer in range(len(inputs) - 1, -1, -1):
        found[:0] = [inputs[layer].T @ gradient, gradient.sum(axis=0)]
        if layer:
            gradient = (gradient @ model[2 * layer].T) * (inputs[layer] > 0)
    return found


def _sgd_step(model: NDArrays, images: Images, labels: Labels) -> None:
    """Take one SGD step on a batch's mean cross-entropy, in place and in float32."""
    for tensor, gradient in zip(model, gradients(model, images, labels), strict=True):
        tensor -= np.float32(LEARNING_RATE) * gradient


def measure(model: NDArrays, images: Images, labels: Labels) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy."""
    _, logits = _forward(model, images)
    # By log-sum-exp, so that a probability that rounds to 0 does not give infinity.
    peak = logits.max(axis=1)
    log_sum = np.log(np.exp(logits - peak[:, None]).sum(axis=1)) + peak
    losses = log_sum - logits[np.arange(len(labels)), labels]
    return float(losses.mean()), float((logits.argmax(axis=1) == labels).mean())


def _number(
    properties: Mapping[str, Scalar], name: str, kind: type[Any], default: float | None
) -> Any:
    """Return property ``name`` as a ``kind``; also parses text, as command lines carry text."""
    value = properties.get(name, default)
    try:
        if value is None or isinstance(value, bool | bytes):
            raise ValueError
        return kind(value)
    except ValueError:
        shown = "missing" if value is None else repr(value)
        raise InvalidSettings(
            f"{name!r} is {shown}: give an {kind.__name__}, such as --property {name}={kind(3)}"
        ) from None
