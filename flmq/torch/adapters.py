"""Exchange adapters (LoRA and its kin) alone: the base model is frozen, and the same everywhere.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv:2106.09685. It
works with any module whose base is frozen by ``requires_grad = False``, as the library peft does.
"""

from __future__ import annotations

import blake3
import numpy as np
from torch import nn

from flmq.common.errors import UsageError
from flmq.torch.state import Names, state_of
from flmq.torch.tensors import to_ndarray

__all__ = ["BASE_DIGEST", "BaseDiffers", "adapter_names", "base_digest"]

BASE_DIGEST = "base_digest"
"""The property of a client, and the key of a round's config, that hold the base's digest."""


class BaseDiffers(UsageError):
    """A client's frozen base is not the one that the job's adapters belong to."""

    def __init__(self, own: str, wanted: str) -> None:
        """Show both digests."""
        super().__init__(
            f"the frozen base of this client has digest {own}, the job's has {wanted}: load the "
            "same base model, in the same dtype, on server and clients"
        )


def adapter_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the state's entries that train: parameters with ``requires_grad``.

    Raises:
        StateMismatch: nothing trains.
    """
    training = {name for name, each in model.named_parameters() if each.requires_grad}
    return tuple(state_of(model, training.__contains__))


def base_digest(model: nn.Module, adapters: Names = None) -> str:
    """Return the BLAKE3 digest of the state without its adapters, 64 hex digits.

    Of names, dtypes, shapes and bits of all entries; ``adapters`` None means `adapter_names`.
    """
    leave = set(adapter_names(model)) if adapters is None else set(state_of(model, adapters))
    digest = blake3.blake3()
    for name, tensor in state_of(model, lambda name: name not in leave).items():
        array = to_ndarray(tensor)
        digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
