"""Dictionaries of scalars: what passes, what is converted, what is refused."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from flmq.common.errors import InvalidReturnValue
from flmq.common.scalars import check_scalars, plain_scalar


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (True, True),
        (b"x", b"x"),
        (0.5, 0.5),
        (-(2**63), -(2**63)),
        (2**63 - 1, 2**63 - 1),
        ("x", "x"),
        (np.float64(0.5), 0.5),
        (np.float32(0.1), 0.10000000149011612),
        (np.int8(-3), -3),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
    ],
)
def test_scalars_pass_and_numpys_become_pythons(value: Any, plain: Any) -> None:
    got = plain_scalar(value)
    assert (got, type(got)) == (plain, type(plain))


@pytest.mark.parametrize("value", [None, [1], {}, 1j, 2**63, -(2**63) - 1, np.ones(1), object()])
def test_what_the_wire_has_no_room_for_is_no_scalar(value: Any) -> None:
    assert plain_scalar(value) is None
    with pytest.raises(InvalidReturnValue, match=f"they hold 'm': {type(value).__name__}"):
        check_scalars({"m": value}, "they")


def test_a_copy_is_returned() -> None:
    values: dict[str, Any] = {"a": 1}
    checked = check_scalars(values, "they")
    checked["a"] = 2
    assert values == {"a": 1}


@pytest.mark.parametrize(
    "half", [np.array(0.5), np.array(0.5, "bfloat16"), np.longdouble(0.5), Fraction(1, 2)]
)
def test_numbers_of_other_kinds_become_pythons(half: Any) -> None:
    checked = check_scalars({"m": half}, "they")
    assert (checked, type(checked["m"])) == ({"m": 0.5}, float)


@pytest.mark.parametrize("values", [None, [("a", 1)], 3])
def test_what_is_no_dictionary_sees_an_example(values: Any) -> None:
    with pytest.raises(InvalidReturnValue, match=r'give a dict such as \{"accuracy": 0\.95\}'):
        check_scalars(values, "they")


def test_a_key_that_is_no_name_is_refused_and_a_long_value_shortened() -> None:
    with pytest.raises(InvalidReturnValue, match="hold 1: int 2"):
        check_scalars({1: 2}, "they")
    with pytest.raises(InvalidReturnValue) as error:
        check_scalars({"m": list(range(1000))}, "they")
    assert len(str(error.value)) < 250
