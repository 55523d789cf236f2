"""A strategy's state as bytes: same values, types and bits, or an error that names the value."""

from __future__ import annotations

import collections
import enum
import json
import math
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flmq.common.errors import InvalidReturnValue, StoredDataError
from flmq.journal.errors import UnsavableState
from flmq.journal.state import decode_state, encode_state, join_state, split_state


def again(value: Any) -> Any:
    return decode_state(encode_state({"x": value}))["x"]


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same to the last bit, with their types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        order = one.flags.c_contiguous, one.flags.f_contiguous
        return (
            one.dtype.str == other.dtype.str
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
            and (not any(order) or order == (other.flags.c_contiguous, other.flags.f_contiguous))
        )
    if isinstance(one, np.generic):
        return bool(one.dtype == other.dtype and one.tobytes() == other.tobytes())
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    return bool(one == other)


plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**63, max_value=2**20_000)
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.binary(max_size=8)
)
dtypes = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes()
    | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes()
    | hnp.byte_string_dtypes()
    | hnp.unicode_string_dtypes()
    | hnp.datetime64_dtypes(max_period="Y", min_period="ns")
)
arrays = dtypes.flatmap(
    lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
)
keys = st.text(max_size=4) | st.integers() | st.tuples(st.booleans(), st.binary(max_size=2))
values = st.recursive(
    plain | arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values)
def test_any_state_comes_back_to_the_bit(value: Any) -> None:
    assert same(value, again(value))
    document, apart = split_state({"x": value}, 4)
    assert same(value, join_state(document, apart)["x"])
    json.loads(document.decode("ascii"))


@pytest.mark.parametrize(
    "value",
    [
        np.float32(0.1),
        np.float64("nan"),
        np.int64(-1),
        np.bool_(True),
        np.complex64(1 + 2j),
        np.longdouble("0.1"),
        np.str_("text\0"),
        np.bytes_(b"\0b"),
        np.str_(""),
        np.datetime64("2026-01-01", "ns"),
        np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)),
        np.arange(12).reshape(3, 4)[:, ::2],
        np.zeros((0, 3), np.float16),
        np.array("ab", dtype="U3"),
        struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0],
        -0.0,
        math.inf,
        -(2**63) - 1,
        {"~int": "0x1"},
        {"~array": 1, "b": 2},
        {1: "a", "1": "b", (2, b"x"): None},
        "\ud800",
    ],
    ids=repr,
)
def test_what_is_easily_lost_is_kept(value: Any) -> None:
    assert same(value, again(value))


def test_arrays_come_back_writable_and_their_own() -> None:
    array = np.arange(3.0)
    copy = again(array)
    copy[0] = 9
    assert array[0] == 0
    document, apart = split_state({"x": array}, 0)
    joined = join_state(document, apart)["x"]
    joined[0] = 9
    assert array[0] == 0


def test_large_arrays_are_kept_apart_without_a_copy() -> None:
    large, small = np.arange(100.0).reshape(10, 10), np.arange(2)
    document, apart = split_state({"a": [large, small], "t": large.T}, 64)
    assert [len(part) for part in apart] == [800, 800]
    assert all(np.shares_memory(np.frombuffer(part, np.uint8), large) for part in apart)
    assert len(document) < 600
    with pytest.raises(StoredDataError):
        join_state(document, apart[:1])


@pytest.mark.parametrize("kind", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_numpys_generators_go_on_where_they_were(kind: str) -> None:
    seed = np.random.SeedSequence(5)
    seed.spawn(2)
    generator = np.random.Generator(getattr(np.random, kind)(seed))
    generator.integers(9, size=3, dtype=np.uint32)  # PCG64 then holds half a word
    copy = again(generator)
    for each in (generator, copy):
        assert type(each.bit_generator).__name__ == kind
    assert copy.integers(2**31, size=9, dtype=np.uint32).tolist() == (
        generator.integers(2**31, size=9, dtype=np.uint32).tolist()
    )
    assert copy.standard_normal(5).tobytes() == generator.standard_normal(5).tobytes()
    (mine,), (its,) = generator.spawn(1), copy.spawn(1)
    assert its.random(3).tobytes() == mine.random(3).tobytes()


def test_pythons_generator_goes_on_where_it_was() -> None:
    generator = random.Random("seed")
    generator.gauss(0, 1)
    copy = again({"g": [generator]})["g"][0]
    assert [copy.gauss(0, 1) for _ in range(3)] == [generator.gauss(0, 1) for _ in range(3)]
    state = again(generator.getstate())
    copy.setstate(state)
    assert copy.random() == generator.random()


class Number(enum.IntEnum):
    ONE = 1


def _holding_itself() -> list[Any]:
    own: list[Any] = []
    own.append(own)
    return own


@pytest.mark.parametrize(
    ("value", "where", "kind"),
    [
        ({1, 2}, r"state_dict\(\)\['x'\]", "set"),
        ([1, {"deep": (0, object())}], r"state_dict\(\)\['x'\]\[1\]\['deep'\]\[1\]", "object"),
        (bytearray(b"x"), "", "bytearray"),
        (Number.ONE, "", "Number"),
        (collections.OrderedDict(a=1), "", "OrderedDict"),
        (np.array([object()]), "", "ndarray"),
        (np.zeros(2, [("a", "f4")]), "", "ndarray"),
        (np.ma.masked_array([1]), "", "MaskedArray"),
        (np.random.RandomState(1), "", "RandomState"),
        ({frozenset(): 1}, "key", "frozenset"),
        (test_what_is_easily_lost_is_kept, "", "function"),
        (_holding_itself(), r"(\[0\]){100}", "list"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_cannot_be_kept_is_named(value: Any, where: str, kind: str) -> None:
    with pytest.raises(UnsavableState, match=f"{where}.* is a {kind}, which cannot be saved") as at:
        encode_state({"x": value})
    assert at.value.kind == kind
    assert isinstance(at.value, InvalidReturnValue)


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"x": {"~unknown": 1}}',
        b'{"x": {"~int": 1}}',
        b'{"x": {"~float": "7ff8"}}',
        b'{"x": {"~bytes": "?"}}',
        b'{"x": {"~array": {"dtype": "|O8", "shape": [1], "fortran": false, "bytes": ""}}}',
        b'{"x": {"~array": {"dtype": "<f8", "shape": [9], "fortran": false, "bytes": "AA=="}}}',
        b'{"x": {"~array": {"dtype": "<f8", "shape": [0], "fortran": false, "blob": 3}}}',
        b'{"x": {"~scalar": {"dtype": "<f8", "bytes": "AA=="}}}',
        b'{"x": {"~generator": {"kind": "os", "seed": null, "state": {}}}}',
        b'{"x": {"~random": [1]}}',
        b"[" * 100_000,
    ],
)
def test_what_was_not_stored_so_is_refused(stored: bytes) -> None:
    with pytest.raises(StoredDataError, match="not a state that flmq stored"):
        decode_state(stored)


def test_equal_states_have_equal_bytes() -> None:
    make: Callable[[], dict[str, Any]] = lambda: {"m": np.arange(3.0), "n": (1, 2**100)}  # noqa: E731
    assert encode_state(make()) == encode_state(make())
