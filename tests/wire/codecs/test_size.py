"""How large encoded tensors are, where that can be said beforehand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flmq.wire.codecs import CODECS, get_codec
from tests.wire.codecs.cases import ARRAYS, npy

RNG = np.random.default_rng(11)
BASE = RNG.standard_normal(200_000).astype(np.float32)
# Changes of a thousandth leave about half of each number's 32 bits as they were.
TENSOR = BASE * (1 + np.float32(1e-3) * RNG.standard_normal(200_000).astype(np.float32))

every_codec = pytest.mark.parametrize("name", CODECS)


@pytest.mark.parametrize(
    ("name", "most"), [("zstd", 0.65), ("fp16", 0.5), ("bf16", 0.4), ("int8", 0.25)]
)
def test_an_update_shrinks(name: str, most: float) -> None:
    (tensor,) = npy(TENSOR)
    (encoded,) = get_codec(name).encode([tensor], npy(BASE))
    assert len(encoded) <= most * len(tensor)


@every_codec
def test_what_did_not_change_costs_next_to_nothing(name: str) -> None:
    (tensor,) = npy(BASE)
    (encoded,) = get_codec(name).encode([tensor], [tensor])
    assert name == "none" or len(encoded) < 1000


@every_codec
@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_nothing_grows_by_more_than_heads(name: str, array: np.ndarray) -> None:
    (tensor,) = npy(array)
    blocks = -(-len(tensor) // (1 << 17))
    (encoded,) = get_codec(name).encode([tensor])
    assert len(encoded) <= len(tensor) + 18 + 4 * blocks


@every_codec
def test_noise_grows_by_no_more_than_heads(name: str) -> None:
    (tensor,) = npy(RNG.integers(0, 256, 300_000, dtype=np.uint8))
    (encoded,) = get_codec(name).encode([tensor])
    assert len(encoded) <= len(tensor) + 18 + 4 * 3


@every_codec
def test_one_codec_serves_many_threads(name: str) -> None:
    codec, tensors, base = get_codec(name), npy(TENSOR), npy(BASE)
    expected = codec.encode(tensors, base)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(codec.encode, tensors, base) for _ in range(12)]
        assert all(run.result() == expected for run in runs)
