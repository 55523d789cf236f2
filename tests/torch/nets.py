"""Modules as people have them: named, with counters and other dtypes; and one with adapters."""

from __future__ import annotations

import torch
from torch import nn


def batch_normed() -> nn.Module:
    """Weights, buffers, and a 0-d int64 counter."""
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


class Lora(nn.Module):  # type: ignore[misc]
    """A frozen linear map and a trainable one of rank 1 beside it (arXiv:2106.09685, eq. 3)."""

    def __init__(self, base_seed: int = 1) -> None:
        super().__init__()
        torch.manual_seed(base_seed)
        self.base = nn.Linear(3, 2)
        self.base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.ones(1, 3))
        self.lora_b = nn.Parameter(torch.zeros(2, 1))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.base(values) + values @ self.lora_a.T @ self.lora_b.T
        return out
