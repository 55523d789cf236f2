"""Which tensors have an exact mean, and whether a reply's tensors match the expected ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.common.dtypes import is_narrow
from flmq.common.errors import InconsistentTensors
from flmq.common.parameter import TensorSpec
from flmq.common.tensor_names import tensor_called

__all__ = ["TensorSpec", "averaged", "check_specs", "check_tensors", "specs_of"]

_KINDS = "fiub"  # float, signed, unsigned, bool
_MAX_ITEMSIZE = 8  # no longdouble


def averaged(spec: TensorSpec) -> TensorSpec:
    """Return ``spec``, if tensors like it have an exact mean.

    float16, float32, float64, bfloat16, float8, bool and all integers of up to 64 bits have one, in
    either byte order.

    Raises:
        InconsistentTensors: any other dtype: complex, longdouble, objects, strings.
    """
    numbers = spec.dtype.kind in _KINDS and spec.dtype.itemsize <= _MAX_ITEMSIZE
    if not (numbers or is_narrow(spec.dtype)):
        raise InconsistentTensors(
            f"dtype {spec.dtype} has no mean here: send float16, float32, float64, bfloat16, "
            "float8, bool or an integer type of up to 64 bits"
        )
    return spec


def specs_of(tensors: Sequence[NDArray[Any]], names: Sequence[str] = ()) -> tuple[TensorSpec, ...]:
    """Return the specs of all ``tensors``; an error calls the tensor by its name, or its index."""
    specs = []
    for position, tensor in enumerate(tensors):
        try:
            specs.append(averaged(TensorSpec.of(np.asarray(tensor))))
        except InconsistentTensors as error:
            raise InconsistentTensors(f"{tensor_called(position, names)}: {error}") from None
    return tuple(specs)


def check_tensors(
    tensors: Sequence[NDArray[Any]], specs: Sequence[TensorSpec], names: Sequence[str] = ()
) -> None:
    """Raise ``InconsistentTensors`` unless ``tensors`` match ``specs`` one for one."""
    check_specs(specs_of(tensors, names), specs, names)


def check_specs(
    got: Sequence[TensorSpec], wanted: Sequence[TensorSpec], names: Sequence[str] = ()
) -> None:
    """Raise ``InconsistentTensors``, naming the first difference, unless both are equal."""
    if len(got) != len(wanted):
        raise InconsistentTensors(f"{len(got)} tensors where {len(wanted)} are expected")
    for position, (have, want) in enumerate(zip(got, wanted, strict=True)):
        if have != want:
            called = tensor_called(position, names)
            raise InconsistentTensors(f"{called} is {have} where {want} is expected")
