"""Options: declared once, checked wherever they are set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from flmq.common.errors import UsageError
from flmq.common.options import check_ranges, option, options_of


class InvalidKettle(UsageError):
    pass


@dataclass(frozen=True)
class Kettle:
    litres: float = option(1.5, "How much.", at_least=0.5, at_most=3, unit="litres")
    cups: int | None = option(None, "For how many.", at_least=1)
    owners: tuple[str, ...] = option((), "Whose.", typed_as=list[str], read=tuple, env="OWNERS")
    warm: bool = option(False, "Keep it warm.", typed_default=True)
    place: Path = Path("kitchen")

    def __post_init__(self) -> None:
        check_ranges(self, InvalidKettle)


def test_a_field_with_an_option_is_a_field_with_a_default() -> None:
    assert Kettle() == Kettle(1.5, None, (), False, Path("kitchen"))


def test_options_come_in_order_with_their_types() -> None:
    declared = dict(options_of(Kettle))
    assert list(declared) == ["litres", "cups", "owners", "warm"]
    assert [each.type for each in declared.values()] == [float, int | None, list[str], bool]
    assert declared["warm"].default is True
    assert declared["owners"].env == "OWNERS"


@pytest.mark.parametrize("kind", [int, Path, "Kettle", None, Kettle()])
def test_what_is_no_dataclass_has_none(kind: object) -> None:
    assert list(options_of(kind)) == []


@pytest.mark.parametrize("litres", [0.4, 3.1, float("nan")])
def test_a_value_out_of_its_range_is_refused_with_what_to_give(litres: float) -> None:
    with pytest.raises(InvalidKettle, match=f"litres is {litres}: give 0.5 to 3, in litres"):
        Kettle(litres=litres)
    with pytest.raises(InvalidKettle, match="cups is 0: give 1 or more"):
        Kettle(cups=0)
    assert Kettle(litres=3, cups=1).cups == 1
