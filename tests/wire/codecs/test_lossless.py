"""What goes in comes out, bit for bit: with "zstd" always, with the others where they say so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common.typing import NDArray
from flmq.wire.codecs import CODECS, get_codec
from tests.wire.codecs.cases import ARRAYS, MAX_BYTES, any_array, base_of, npy, npy_2_0

LOSSY = ("fp16", "bf16", "int8")

every_array = pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
every_codec = pytest.mark.parametrize("name", CODECS)
lossy_codec = pytest.mark.parametrize("name", LOSSY)


def there_and_back(name: str, tensors: list[bytes], base: list[bytes] | None) -> list[bytes]:
    codec = get_codec(name)
    return codec.decode(codec.encode(tensors, base), base, max_bytes=MAX_BYTES)


class TestBitExact:
    @every_array
    def test_without_a_base(self, array: NDArray) -> None:
        assert there_and_back("zstd", npy(array), None) == npy(array)

    @every_array
    def test_against_a_base(self, array: NDArray) -> None:
        assert there_and_back("zstd", npy(array), npy(base_of(array))) == npy(array)

    @every_array
    def test_against_itself(self, array: NDArray) -> None:
        assert there_and_back("zstd", npy(array), npy(array)) == npy(array)

    @given(any_array())
    def test_any_bits(self, array: NDArray) -> None:
        for base in (None, npy(base_of(array))):
            assert there_and_back("zstd", npy(array), base) == npy(array)

    @given(any_array(), any_array())
    def test_a_base_of_any_form(self, array: NDArray, base: NDArray) -> None:
        assert there_and_back("zstd", npy(array), npy(base)) == npy(array)

    def test_a_header_that_is_not_the_bases(self) -> None:
        array = np.arange(5, dtype=np.float32)
        tensors = [npy_2_0(array)]
        assert there_and_back("zstd", tensors, npy(array + 1)) == tensors

    def test_memoryviews(self) -> None:
        (tensor,) = npy(np.arange(5.0))
        (base,) = npy(np.arange(5.0) + 1)
        codec = get_codec("zstd")
        encoded = codec.encode([memoryview(tensor)], [memoryview(base)])
        views = [memoryview(piece) for piece in encoded]
        assert codec.decode(views, [memoryview(base)], max_bytes=MAX_BYTES) == [tensor]

    def test_a_model_with_fewer_tensors_in_its_base(self) -> None:
        tensors = npy(np.arange(3.0), np.arange(4))
        assert there_and_back("zstd", tensors, tensors[:1]) == tensors

    @every_codec
    def test_no_tensors(self, name: str) -> None:
        assert there_and_back(name, [], None) == []


class TestOpaque:
    """A user's own tensor type, such as a tree ensemble as JSON: not looked into."""

    @every_codec
    @pytest.mark.parametrize("tensor", [b"", b"\x00", b'{"trees": []}' * 100, b"\x93NUMPY\x01"])
    def test_is_kept(self, name: str, tensor: bytes) -> None:
        for base in (None, [tensor], npy(np.arange(3.0))):
            assert there_and_back(name, [tensor], base) == [tensor]

    @given(st.binary(max_size=300))
    def test_any_bytes_are_kept(self, tensor: bytes) -> None:
        assert there_and_back("int8", [tensor], None) == [tensor]


class TestLossyCodecsKeep:
    """What they do not apply to."""

    @lossy_codec
    @pytest.mark.parametrize(
        "dtype",
        [
            *("?", "i1", "u2", "i4", "i8", "f2", ">f2", "c8", "c16", "g"),
            *("bfloat16", "float8_e4m3fn", "float8_e5m2"),
        ],
    )
    def test_other_dtypes(self, name: str, dtype: str) -> None:
        array = ARRAYS[f"dtype {dtype}"]
        for base in (None, npy(base_of(array))):
            assert there_and_back(name, npy(array), base) == npy(array)

    @lossy_codec
    @pytest.mark.parametrize("dtype", ["f4", "f8", ">f4"])
    @pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, "max", "min"])
    def test_tensors_with_a_number_they_cannot_hold(
        self, name: str, dtype: str, odd: float | str
    ) -> None:
        tame = np.linspace(-1, 1, 50).astype(dtype)
        wild = tame.copy()
        wild[17] = getattr(np.finfo(dtype), odd) if isinstance(odd, str) else odd
        for tensor, base in ((wild, None), (wild, tame), (tame, wild)):
            back = there_and_back(name, npy(tensor), None if base is None else npy(base))
            assert back == npy(tensor)

    @lossy_codec
    def test_only_the_tensor_concerned_goes_without_loss(self, name: str) -> None:
        good, bad = np.linspace(0, 1, 999), np.array([1.0, np.nan])
        back = there_and_back(name, npy(good, bad), None)
        assert back[0] != npy(good)[0]
        assert back[1] == npy(bad)[0]

    @lossy_codec
    @every_array
    def test_what_the_base_has_already(self, name: str, array: NDArray) -> None:
        back = there_and_back(name, npy(array), npy(array))
        # -0.0 - -0.0 is +0.0, which added to -0.0 is +0.0: equal, though not the same bits.
        if array.dtype.kind == "f" and (array == 0).any():
            values = np.frombuffer(back[0], array.dtype, array.size, len(back[0]) - array.nbytes)
            flat = array.reshape(-1, order="A")
            assert np.array_equal(values, flat, equal_nan=True)
        else:
            assert back == npy(array)
