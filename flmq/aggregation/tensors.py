"""Which tensors have an exact mean, and whether a reply's tensors match the expected ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.common.errors import InconsistentTensors

__all__ = ["TensorSpec", "check_specs", "check_tensors", "specs_of"]

_KINDS = "fiub"  # float, signed, unsigned, bool
_MAX_ITEMSIZE = 8  # no longdouble


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape and dtype of a tensor that can be averaged.

    float16, float32, float64, bool and all integers of up to 64 bits, in either byte order, have a
    mean.

    Raises:
        InconsistentTensors: any other dtype (complex, longdouble, objects, strings).
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __post_init__(self) -> None:
        """Refuse a dtype that has no exact mean."""
        if self.dtype.kind not in _KINDS or self.dtype.itemsize > _MAX_ITEMSIZE:
            raise InconsistentTensors(
                f"dtype {self.dtype} has no mean here: send float16, float32, float64, bool or "
                "an integer type of up to 64 bits"
            )

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @classmethod
    def of(cls, tensor: NDArray[Any]) -> TensorSpec:
        """Return the spec of ``tensor``."""
        return cls(tuple(tensor.shape), tensor.dtype)

    def __str__(self) -> str:
        """Return text such as ``float32[64, 10]``."""
        return f"{self.dtype}{list(self.shape)}"


def specs_of(tensors: Sequence[NDArray[Any]]) -> tuple[TensorSpec, ...]:
    """Return the specs of all ``tensors``; an error names the tensor by its index."""
    specs = []
    for position, tensor in enumerate(tensors):
        try:
            specs.append(TensorSpec.of(np.asarray(tensor)))
        except InconsistentTensors as error:
            raise InconsistentTensors(f"tensor {position}: {error}") from None
    return tuple(specs)


def check_tensors(tensors: Sequence[NDArray[Any]], specs: Sequence[TensorSpec]) -> None:
    """Raise ``InconsistentTensors`` unless ``tensors`` match ``specs`` one for one."""
    check_specs(specs_of(tensors), specs)


def check_specs(got: Sequence[TensorSpec], wanted: Sequence[TensorSpec]) -> None:
    """Raise ``InconsistentTensors``, naming the first difference, unless both are equal."""
    if len(got) != len(wanted):
        raise InconsistentTensors(f"{len(got)} tensors where {len(wanted)} are expected")
    for position, (have, want) in enumerate(zip(got, wanted, strict=True)):
        if have != want:
            raise InconsistentTensors(f"tensor {position} is {have} where {want} is expected")
