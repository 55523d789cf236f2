from __future__ import annotations

import numpy as np
import pytest
import torch

from flmq.common.dtypes import NARROW_FLOATS
from flmq.torch import UnsupportedTensor, to_ndarray, to_tensor

EXCHANGED = [
    torch.float16,
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.complex64,
]


@pytest.mark.parametrize("dtype", EXCHANGED)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_there_and_back_bit_for_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    tensor = torch.arange(size, dtype=torch.float32).sub(1).reshape(shape).to(dtype)
    array = to_ndarray(tensor)
    assert array.shape == shape
    back = to_tensor(array)
    assert back.dtype is dtype
    assert back.shape == tensor.shape
    assert to_ndarray(back).tobytes() == array.tobytes()


def test_memory_is_shared() -> None:
    tensor = torch.zeros(3, dtype=torch.bfloat16)
    to_ndarray(tensor)[1] = 1.5
    assert tensor.tolist() == [0.0, 1.5, 0.0]


def test_a_view_that_is_not_contiguous_keeps_its_values() -> None:
    tensor = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).T
    assert to_ndarray(tensor).astype(np.float32).tolist() == tensor.float().tolist()


def test_a_gradient_is_left_behind() -> None:
    assert to_ndarray(torch.ones(2, requires_grad=True)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", ["float32", "int64", "bfloat16"])
def test_the_other_byte_order(dtype: str) -> None:
    there = np.array([1, -2, 3]).astype(dtype)
    other = there.view(np.uint16 if dtype == "bfloat16" else there.dtype)
    if dtype != "bfloat16":
        other = there.astype(there.dtype.newbyteorder(">"))
        assert to_tensor(other).tolist() == [1, -2, 3]
    assert to_tensor(there).tolist() == [1, -2, 3]


def test_a_read_only_array_is_taken_without_a_word() -> None:
    array = np.arange(3, dtype=np.float32)
    array.flags.writeable = False
    assert to_tensor(array).tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.eye(2).to_sparse(), "only dense tensors"),
        (torch.empty(2, device="meta"), "on the meta device"),
    ],
    ids=["sparse", "meta"],
)
def test_what_has_no_values_is_refused(tensor: torch.Tensor, says: str) -> None:
    with pytest.raises(UnsupportedTensor, match=says):
        to_ndarray(tensor)


def test_a_dtype_that_torch_lacks_is_refused() -> None:
    with pytest.raises(UnsupportedTensor, match="torch has no tensors of"):
        to_tensor(np.array([1], NARROW_FLOATS["float8_e3m4"]))
