"""Arrays there and back as ``.npy`` bytes, and bytes that are no such thing."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from flmq.common.dtypes import NARROW_FLOATS
from flmq.common.errors import InvalidReturnValue, MalformedMessage
from flmq.common.parameter import (
    TensorSpec,
    bytes_to_ndarray,
    ndarray_to_bytes,
    ndarrays_to_parameters,
    ndarrays_to_views,
    parameters_to_ndarrays,
    tensor_spec,
    without_parameters,
)
from flmq.common.typing import Code, FitIns, GetPropertiesRes, NDArray, Parameters, Status

_GRID = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

ARRAYS: dict[str, NDArray] = {
    "0-d": np.array(3.5),
    "0-d bool": np.array(True),
    "empty": np.zeros(0, np.float32),
    "empty 2-d": np.zeros((0, 3), np.int8),
    "empty Fortran": np.zeros((3, 0, 2), order="F"),
    "C": _GRID,
    "Fortran": np.asfortranarray(_GRID),
    "every other": _GRID[:, :, ::2],
    "reversed": _GRID[::-1],
    "transposed": _GRID.transpose(1, 0, 2),
    "broadcast": np.broadcast_to(np.float64(2.0), (3, 2)),
    "read-only": np.frombuffer(b"\x01\x02", np.uint8),
    "32 dimensions": np.ones((1,) * 32),
    "special values": np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324]),
    **{
        dtype: np.arange(5).astype(dtype)
        for dtype in (
            *("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"),
            *("f2", "f4", "f8", "c8", "c16", ">f4", ">i8"),
        )
    },
    "long double": np.arange(3, dtype=np.longdouble),
}
NARROW: dict[str, NDArray] = {
    name: np.arange(12).reshape(3, 4).astype(dtype) for name, dtype in NARROW_FLOATS.items()
}

every_array = pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())


every_narrow = pytest.mark.parametrize("array", NARROW.values(), ids=NARROW.keys())


def assert_same(got: NDArray, sent: NDArray) -> None:
    """Same numbers in the same bits, little-endian; same shape."""
    sent = sent.astype(sent.dtype.newbyteorder("<"))
    assert got.dtype == sent.dtype
    assert got.dtype.str == sent.dtype.str
    assert got.shape == sent.shape
    assert got.tobytes() == sent.tobytes()


def npy(header: str, values: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """Bytes with a header of one's own making."""
    width = 2 if version == b"\x01\x00" else 4
    length = len(header).to_bytes(width, "little")
    return b"\x93NUMPY" + version + length + header.encode("latin-1") + values


def plain(descr: str = "<f4", fortran: str = "False", shape: str = "(2,)") -> str:
    """A header as numpy writes it."""
    return f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


class TestRoundTrip:
    @every_array
    def test_keeps_dtype_shape_and_bits(self, array: NDArray) -> None:
        assert_same(bytes_to_ndarray(ndarray_to_bytes(array)), array)

    @every_array
    def test_writes_what_numpy_writes(self, array: NDArray) -> None:
        file = io.BytesIO()
        np.save(file, array.astype(array.dtype.newbyteorder("<")), allow_pickle=False)
        assert ndarray_to_bytes(array) == file.getvalue()

    @every_array
    def test_reads_what_numpy_writes(self, array: NDArray) -> None:
        for version in ((1, 0), (2, 0)):
            file = io.BytesIO()
            np.lib.format.write_array(file, array, version, allow_pickle=False)
            got = bytes_to_ndarray(file.getvalue())
            assert got.dtype.str == array.dtype.str
            assert_same(got.astype(got.dtype.newbyteorder("<")), array)

    @every_array
    def test_keeps_the_memory_order(self, array: NDArray) -> None:
        got = bytes_to_ndarray(ndarray_to_bytes(array))
        fortran_alone = array.flags.f_contiguous and not array.flags.c_contiguous
        assert got.flags.c_contiguous != fortran_alone

    @every_array
    def test_gives_an_array_of_ones_own(self, array: NDArray) -> None:
        encoded = ndarray_to_bytes(array)
        before = bytes(bytearray(encoded))
        got = bytes_to_ndarray(encoded)
        got[...] = 1
        assert encoded == before

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_without_copy_it_is_a_read_only_view(self, kind: Any) -> None:
        buffer = kind(ndarray_to_bytes(_GRID))
        got = bytes_to_ndarray(buffer, copy=False)
        assert_same(got, _GRID)
        assert np.shares_memory(got, np.frombuffer(buffer, np.uint8))
        with pytest.raises(ValueError, match="read-only"):
            got[0] = 1

    def test_what_numpy_makes_an_array_of_is_taken(self) -> None:
        given_list: Any = [1.0, 2.0]
        assert_same(bytes_to_ndarray(ndarray_to_bytes(given_list)), np.array([1.0, 2.0]))

    @given(
        npst.arrays(
            st.one_of(
                npst.boolean_dtypes(),
                npst.integer_dtypes(),
                npst.unsigned_integer_dtypes(),
                npst.floating_dtypes(),
                npst.complex_number_dtypes(),
            ),
            npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        )
    )
    def test_any_array(self, array: NDArray) -> None:
        encoded = ndarray_to_bytes(array)
        assert_same(bytes_to_ndarray(encoded), array)
        assert tensor_spec(encoded) == TensorSpec(array.shape, array.dtype)


class TestParameters:
    def test_keep_order_and_type(self) -> None:
        arrays = list(ARRAYS.values())
        parameters = ndarrays_to_parameters(arrays)
        assert parameters.tensor_type == "numpy.ndarray"
        for got, sent in zip(parameters_to_ndarrays(parameters), arrays, strict=True):
            assert_same(got, sent)

    def test_of_nothing(self) -> None:
        assert ndarrays_to_parameters([]) == Parameters([], "numpy.ndarray")
        assert parameters_to_ndarrays(Parameters([], "")) == []

    def test_without_copy(self) -> None:
        parameters = ndarrays_to_parameters([_GRID])
        assert not parameters_to_ndarrays(parameters, copy=False)[0].flags.writeable
        assert parameters_to_ndarrays(parameters)[0].flags.writeable

    def test_name_the_array_that_cannot_be_sent(self) -> None:
        with pytest.raises(InvalidReturnValue, match="parameter 1: ndarray of dtype object"):
            ndarrays_to_parameters([_GRID, np.array([None])])

    def test_name_the_tensor_that_cannot_be_read(self) -> None:
        parameters = ndarrays_to_parameters([_GRID])
        parameters.tensors.append(b"garbage")
        with pytest.raises(MalformedMessage, match=r"tensor 1: not \.npy bytes"):
            parameters_to_ndarrays(parameters)


class TestUnsendable:
    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (np.array([None, 1], dtype=object), "dtype object"),
            ({"weights": 1}, "dict of dtype object"),
            (np.array(["a"]), "dtype <U1"),
            (np.array([b"a"]), r"dtype \|S1"),
            (np.zeros(2, dtype=[("a", "f4")]), "convert it first"),
            (np.zeros(2, dtype="V2"), r"dtype \|V2"),
            (np.ma.masked_equal([1.0, 2.0], 2.0), r"mask would be lost.*\.filled"),
            (np.array(["2020-01-01"], dtype="M8[D]"), "datetime64"),
            ([[1.0], [1.0, 2.0]], "list cannot be made a numpy array"),
        ],
    )
    def test_is_named_with_what_to_do(self, value: Any, words: str) -> None:
        with pytest.raises(InvalidReturnValue, match=words):
            ndarray_to_bytes(value)


MALFORMED: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "not .npy bytes"),
    ("garbage", b"hello world, hello", "not .npy bytes: begins with b'hello '"),
    ("pickle", pickle.dumps([1, 2]), "a pickle is never loaded"),
    ("magic alone", b"\x93NUMPY", "version"),
    ("magic and version alone", b"\x93NUMPY\x01\x00", "truncated or oversize"),
    ("version 3", npy(plain(), bytes(8), b"\x03\x00"), "version 03.00 is not 1.0 or 2.0"),
    ("version 1.1", npy(plain(), bytes(8), b"\x01\x01"), "version 01.01"),
    ("header longer than the rest", b"\x93NUMPY\x01\x00\xff\x00{", "oversize (255 bytes)"),
    ("header of 4 GiB", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "oversize (4294967295 bytes)"),
    ("header of 20 kB", npy(plain() + " " * 20_000, bytes(8)), "oversize"),
    ("terabytes", npy(plain(shape="(1099511627776,)")), "promises 4398046511104 bytes"),
    ("overflow", npy(plain(shape=f"({2**62}, 4)"), bytes(8)), "promises 73786976294838206464 by"),
    ("product of 0 mod 2^64", npy(plain(shape=f"({2**32}, {2**32})")), "promises"),
    ("too few values", npy(plain(), bytes(7)), "promises 8 bytes (shape (2,), float32), 7 follow"),
    ("trailing bytes", npy(plain(), bytes(9)), "9 follow"),
    ("trailing bytes after nothing", npy(plain(shape="(0,)"), b"\x00"), "0 bytes"),
    ("objects", npy(plain("|O"), bytes(16)), "not a .npy header of booleans, integers"),
    ("objects with a size", npy(plain("|O8"), bytes(16)), "not a .npy header"),
    ("text", npy(plain("<U1"), bytes(8)), "not a .npy header"),
    ("void", npy(plain("|V4"), bytes(8)), "not a .npy header"),
    ("dates", npy(plain("<M8[D]"), bytes(16)), "not a .npy header"),
    ("one character", npy(plain("c1"), bytes(2)), "numpy here has no dtype 'c1'"),
    ("no such dtype", npy(plain("<f3"), bytes(6)), "numpy here has no dtype '<f3'"),
    (
        "records",
        npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", bytes(8)),
        "not a .npy header",
    ),
    ("shape of a float", npy(plain(shape="(2.0,)"), bytes(8)), "not a .npy header"),
    ("shape of an int", npy(plain(shape="(2)"), bytes(8)), "not a .npy header"),
    ("negative shape", npy(plain(shape="(-1, -2)"), bytes(8)), "not a .npy header"),
    ("fortran of a number", npy(plain(fortran="1"), bytes(8)), "not a .npy header"),
    ("code", npy("__import__('os').getcwd()", bytes(8)), "not a .npy header"),
    ("nesting", npy("(" * 5000, bytes(8)), "not a .npy header"),
    ("other digits", npy(plain(shape="(\xb2,)"), bytes(8)), "not a .npy header"),
    ("65 dimensions", npy(plain(shape=f"({'1, ' * 65})"), bytes(4)), "no arrays of shape"),
    ("zero times huge", npy(plain(shape=f"(0, {2**62}, {2**62})")), "no arrays of shape"),
]


class TestMalformed:
    @pytest.mark.parametrize(
        ("tensor", "words"),
        [case[1:] for case in MALFORMED],
        ids=[case[0] for case in MALFORMED],
    )
    def test_is_refused_and_named(self, tensor: bytes, words: str) -> None:
        for form in (tensor, memoryview(tensor)):
            with pytest.raises(MalformedMessage) as caught:
                bytes_to_ndarray(form)
            assert words in str(caught.value)

    @pytest.mark.parametrize("copy", [True, False])
    def test_a_promise_takes_no_memory(self, copy: bool) -> None:
        tensor = npy(plain(shape="(1000000000,)"), bytes(100))
        tracemalloc.start()
        try:
            with pytest.raises(MalformedMessage):
                bytes_to_ndarray(tensor, copy=copy)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1_000_000

    def test_cut_anywhere(self) -> None:
        encoded = ndarray_to_bytes(_GRID)
        for length in range(len(encoded)):
            with pytest.raises(MalformedMessage):
                bytes_to_ndarray(encoded[:length])

    @given(st.data())
    def test_damaged_anywhere_raises_nothing_else(self, data: st.DataObject) -> None:
        encoded = bytearray(ndarray_to_bytes(_GRID))
        start = data.draw(st.integers(0, len(encoded)))
        encoded[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        try:
            got = bytes_to_ndarray(encoded)
        except MalformedMessage:
            return
        assert got.nbytes <= len(encoded)

    @given(st.binary(max_size=100), st.sampled_from([b"", b"\x93NUMPY\x01\x00"]))
    def test_random_bytes_raise_nothing_else(self, tail: bytes, magic: bytes) -> None:
        with pytest.raises(MalformedMessage):
            tensor_spec(magic + tail)


class TestTensorSpec:
    @pytest.mark.parametrize("order", ["", "<", ">", "|", "="])
    @pytest.mark.parametrize("kind", "biufc")
    def test_whatever_the_grammar_lets_through_is_a_number_or_refused(
        self, order: str, kind: str
    ) -> None:
        kinds = set()
        for size in range(100):
            try:
                kinds.add(tensor_spec(npy(plain(f"{order}{kind}{size}", shape="(0,)"))).dtype.kind)
            except MalformedMessage:
                continue
        assert kinds == {kind}

    @every_array
    def test_tells_shape_and_dtype(self, array: NDArray) -> None:
        assert tensor_spec(ndarray_to_bytes(array)) == TensorSpec(array.shape, array.dtype)

    @pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2", "u4", "i8", "c8", "c16"])
    def test_byte_order_is_no_part_of_what_is_sent_nor_of_a_spec(self, dtype: str) -> None:
        little, big = (np.arange(5).astype(f"{order}{dtype}") for order in "<>")
        assert ndarray_to_bytes(big) == ndarray_to_bytes(little)
        assert TensorSpec.of(big) == TensorSpec.of(little)
        file = io.BytesIO()
        np.save(file, big)
        assert tensor_spec(file.getvalue()) == TensorSpec.of(little)


class TestNarrowFloats:
    @every_narrow
    def test_come_back_with_their_type(self, array: NDArray) -> None:
        for shape in (array, array.T, array[::2, ::-1], array[0, 0], array[:0]):
            assert_same(bytes_to_ndarray(ndarray_to_bytes(shape)), shape)
            (view,) = ndarrays_to_views([shape]).tensors
            assert_same(bytes_to_ndarray(view, copy=False), shape)
        assert tensor_spec(ndarray_to_bytes(array)) == TensorSpec((3, 4), array.dtype)

    @every_narrow
    def test_numpy_reads_them(self, array: NDArray) -> None:
        assert_same(np.load(io.BytesIO(ndarray_to_bytes(array))), array)

    @every_narrow
    def test_what_numpy_saves_of_them_is_refused_in_words(self, array: NDArray) -> None:
        file = io.BytesIO()
        np.save(file, array)
        with pytest.raises(MalformedMessage, match=r"write such arrays with flmq\.common"):
            bytes_to_ndarray(file.getvalue())

    @pytest.mark.parametrize("name", ["float8_e8m0fnu", "int4", "float4_e2m1fn"])
    def test_what_nobody_trains_in_is_refused(self, name: str) -> None:
        array = np.ones(3, getattr(ml_dtypes, name))
        with pytest.raises(InvalidReturnValue, match=rf"dtype {name} cannot be sent"):
            ndarray_to_bytes(array)
        with pytest.raises(MalformedMessage, match=r"not a \.npy header"):
            tensor_spec(npy(plain(name), bytes(2)))


def test_a_message_without_its_parameters_is_a_copy_that_keeps_the_rest() -> None:
    ins = FitIns(ndarrays_to_parameters([np.zeros(3)]), {"lr": 0.1})
    assert without_parameters(ins) == FitIns(Parameters([], "numpy.ndarray"), {"lr": 0.1})
    assert len(ins.parameters.tensors) == 1


def test_a_message_that_has_no_parameters_comes_back_as_it_is() -> None:
    res = GetPropertiesRes(Status(Code.OK, ""), {})
    assert without_parameters(res) is res
