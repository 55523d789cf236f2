"""Clients that train softmax regression on the digits, in one process; and hostile ones."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flmq.cli.demo.digits import BATCH_SIZE, LEARNING_RATE, LOCAL_EPOCHS, gradients, measure
from flmq.client import Client, NumPyClient
from flmq.client.client import answer
from flmq.client.learning import ScaffoldClient, accumulated_steps, proximal_gradient
from flmq.common import Config, Metrics, NDArray, NDArrays
from flmq.datasets.digits import client_shard, load_digits
from flmq.server.client_proxy import ClientProxy


class Partition:
    """The digits, dealt to clients."""

    def __init__(self, clients: int, kind: str, alpha: float, seed: int) -> None:
        self.seed = seed
        self._dealt = (clients, kind, seed)
        self._alpha = alpha

    def of(self, index: int) -> tuple[NDArray, NDArray]:
        """Images and labels of a client."""
        return client_shard(*self._dealt, index, self._alpha)

    def test(self, model: NDArrays) -> tuple[float, float]:
        """Loss and accuracy on the test images."""
        return measure(model, self._digits.test_images, self._digits.test_labels)

    @cached_property
    def _digits(self) -> Any:
        return load_digits(self.seed)


class SoftmaxDigits(NumPyClient):
    """Answers to every strategy that needs no state of its clients."""

    def __init__(self, data: Partition, index: int) -> None:
        self.images, self.labels = data.of(index)
        self.seed = (data.seed, index)

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        loss, _ = measure(parameters, self.images, self.labels)
        mu = float(config.get("proximal_mu", 0.0))
        start = [tensor.copy() for tensor in parameters]
        steps = 0
        for batch in self.batches(config):
            grads = gradients(parameters, self.images[batch], self.labels[batch])
            if mu:
                pull = proximal_gradient(parameters, start, mu)
                grads = [g + p for g, p in zip(grads, pull, strict=True)]
            for tensor, grad in zip(parameters, grads, strict=True):
                tensor -= np.float32(LEARNING_RATE) * grad
            steps += 1
        return parameters, len(self.labels), {"loss": loss, "tau": accumulated_steps(steps)}

    def batches(self, config: Config) -> Any:
        rng = np.random.default_rng([*self.seed, int(config.get("server_round", 0))])
        for _ in range(LOCAL_EPOCHS):
            order = rng.permutation(len(self.labels))
            for start in range(0, len(order), BATCH_SIZE):
                yield order[start : start + BATCH_SIZE]


class ScaffoldDigits(ScaffoldClient):
    """The same with SCAFFOLD's correction."""

    def __init__(self, data: Partition, index: int, state_dir: Path) -> None:
        state_dir.mkdir()
        super().__init__(state_dir)
        self.plain = SoftmaxDigits(data, index)

    def train(
        self, parameters: NDArrays, correction: NDArrays, config: Config
    ) -> tuple[NDArrays, float, int, Metrics]:
        steps = 0
        for batch in self.plain.batches(config):
            grads = gradients(parameters, self.plain.images[batch], self.plain.labels[batch])
            for tensor, grad, more in zip(parameters, grads, correction, strict=True):
                tensor -= np.float32(LEARNING_RATE) * (grad + more)
            steps += 1
        return parameters, steps * LEARNING_RATE, len(self.plain.labels), {}


class Hostile(NumPyClient):
    """Answers with five times its update, turned round."""

    def __init__(self, honest: NumPyClient) -> None:
        self.honest = honest

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        start = [tensor.copy() for tensor in parameters]
        trained, examples, metrics = self.honest.fit(parameters, config)
        turned = [
            s - np.float32(5) * (t - s) if t.shape == s.shape else t
            for s, t in zip(start, trained, strict=True)
        ]
        return turned, examples, metrics


class LocalProxy(ClientProxy):
    """Calls a client of this process."""

    def __init__(self, cid: str, client: Client) -> None:
        super().__init__(cid)
        self.client = client

    def _call(self, ins: Any, timeout: float | None, group_id: int | None = None) -> Any:
        return answer(self.client, ins)

    get_properties = get_parameters = fit = evaluate = reconnect = _call
