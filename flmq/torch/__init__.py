"""PyTorch models as parameters, and clients that train them. Needs the extra ``flmq[torch]``."""

from __future__ import annotations

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError("flmq.torch needs PyTorch: pip install 'flmq[torch]'") from error

from flmq.torch.adapters import BaseDiffers, adapter_names, base_digest
from flmq.torch.client import TorchClient
from flmq.torch.state import StateMismatch, get_state, set_state
from flmq.torch.tensors import UnsupportedTensor, to_ndarray, to_tensor

__all__ = [
    "BaseDiffers",
    "StateMismatch",
    "TorchClient",
    "UnsupportedTensor",
    "adapter_names",
    "base_digest",
    "get_state",
    "set_state",
    "to_ndarray",
    "to_tensor",
]
