"""A PyTorch client of a private federation: the same mod around it.

pip install "flmq[torch]"
flmq client torch_client:client --client-id alice --once

Without batch normalization, as its running variance could become negative with noise.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import mse_loss

from flmq.client import Client, ClientContext
from flmq.client.mod import fixedclipping_mod, with_mods
from flmq.common import Config, Metrics
from flmq.torch import TorchClient


class Line(TorchClient):
    """Fits a line to points of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(nn.Linear(1, 1))
        points = torch.Generator().manual_seed(int.from_bytes(name.encode()[:7]))
        self.x = torch.rand(100, 1, generator=points)
        self.y = 3 * self.x + 1

    def train(self, model: nn.Module, config: Config) -> tuple[int, Metrics]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(5):
            optimizer.zero_grad()
            loss = mse_loss(model(self.x), self.y)
            loss.backward()
            optimizer.step()
        return len(self.x), {"loss": float(loss.detach())}


def client(context: ClientContext) -> Client:
    return with_mods(Line(context.client_id), [fixedclipping_mod])
