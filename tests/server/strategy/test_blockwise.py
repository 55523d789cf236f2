"""Replies read in blocks: every form of tensor, memory of a block, few files open."""

from __future__ import annotations

import resource
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.common import FitRes, NDArray, NDArrays, Parameters, ndarrays_to_parameters
from flmq.common.dtypes import is_narrow
from flmq.common.errors import InconsistentTensors, InvalidReturnValue
from flmq.common.parameter import TensorSpec
from flmq.server.strategy import AllReplies, Replies, coordinate_wise
from flmq.wire import FileParameters, refer
from tests.server.proxies import fit_res, model


def on_disk(folder: Path, parameters: Parameters) -> FileParameters:
    ref = refer(parameters)
    path = folder / ref.digest
    path.write_bytes(b"".join(parameters.tensors))
    return FileParameters(path, ref)


def median(values: NDArray) -> NDArray:
    return np.asarray(np.median(values, axis=0))


def combined(replies: Sequence[Parameters], rule: Any = median, block_bytes: int = 64) -> NDArrays:
    combine = AllReplies(coordinate_wise(rule, block_bytes))
    for number, parameters in enumerate(replies):
        combine.add(f"c{number:03}", fit_res(parameters, 1))
    return combine.finish().ndarrays()


def tensors(seed: int) -> NDArrays:
    """Of every form that a client may send."""
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(7, 5)).astype(np.float32),
        np.asfortranarray(rng.normal(size=(4, 9))),
        np.array(rng.normal()),
        np.zeros((0, 3)),
        rng.integers(-9, 9, size=50),
        rng.normal(size=40).astype(np.float16),
        rng.normal(size=13).astype(">f4"),
        rng.normal(size=13).astype("bfloat16"),
        rng.normal(size=13).astype("float8_e4m3fn"),
        rng.integers(0, 2, size=21).astype(bool),
    ]


@pytest.mark.parametrize("block_bytes", [1, 64, 1000, 1 << 20])
@pytest.mark.parametrize("disk", [False, True])
def test_blocks_give_what_all_replies_at_once_would(
    tmp_path: Path, disk: bool, block_bytes: int
) -> None:
    each = [tensors(seed) for seed in range(5)]
    sent = [ndarrays_to_parameters(arrays) for arrays in each]
    if disk:
        sent = [on_disk(tmp_path, parameters) for parameters in sent]
    got = combined(sent, block_bytes=block_bytes)
    for index, result in enumerate(got):
        stack = np.stack([arrays[index] for arrays in each])
        stack = stack.astype(stack.dtype.newbyteorder("="))
        wide = stack.astype(np.float32) if is_narrow(stack.dtype) else stack
        whole = np.median(wide, axis=0)
        assert TensorSpec.of(result) == TensorSpec.of(each[0][index])
        np.testing.assert_array_equal(result, whole.astype(stack.dtype))


def test_a_rule_may_change_its_block_and_integers_are_rounded_to_the_nearest() -> None:
    def trimmed(values: NDArray) -> Any:
        values.sort(axis=0)
        return values[1:-1].mean(axis=0)

    sent = [model(np.array([n, 10 * n, -n])) for n in (9, 1, 2, 3, 4, 0)]
    assert combined(sent, trimmed)[0].tolist() == [2, 25, -2]


def test_memory_is_that_of_a_block_and_of_the_result(tmp_path: Path) -> None:
    numbers, block = 500_000, 1 << 20
    rng = np.random.default_rng(1)
    sent = [
        on_disk(tmp_path, model(rng.normal(size=numbers).astype(np.float32))) for _ in range(30)
    ]
    tracemalloc.start()
    try:
        combined(sent, lambda values: values.max(axis=0), block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * numbers + 3 * block


def test_more_replies_than_files_may_be_open(tmp_path: Path) -> None:
    sent = [on_disk(tmp_path, model([float(number), 1.0])) for number in range(301)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, soft), hard))
    try:
        assert combined(sent)[0].tolist() == [150.0, 1.0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_was_put_in_the_place_of_the_files_tensors_counts(tmp_path: Path) -> None:
    changed = on_disk(tmp_path, model([1.0]))
    changed.tensors = model([5.0]).tensors
    assert combined([changed])[0].tolist() == [5.0]


def _replies(*parameters: Parameters) -> Replies:
    pairs: Iterator[tuple[str, FitRes]] = (
        (f"c{number}", fit_res(each, 1)) for number, each in enumerate(parameters)
    )
    return Replies(pairs)


def test_replies_of_different_forms_are_named() -> None:
    odd = _replies(model([1.0]), model([1.0, 2.0]))
    with pytest.raises(InconsistentTensors, match=r"c1 has tensors float64\[2\], that of c0 floa"):
        next(odd.blocks(0))
    broken = _replies(Parameters([b"nothing"], "numpy.ndarray"))
    with pytest.raises(InconsistentTensors, match="tensor 0 of c0: not"):
        next(broken.blocks(0))


def test_a_rule_that_makes_something_else_is_told_so() -> None:
    with pytest.raises(InvalidReturnValue, match=r"shape \(2,\) of \(2, 3\), not \(3,\): let it"):
        combined([model([1.0, 2.0, 3.0])] * 2, lambda values: values.mean(axis=1))
