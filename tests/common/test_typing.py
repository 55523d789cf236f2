"""The contract with Flower's users: names, fields, their order, and that they may be changed."""

from __future__ import annotations

import dataclasses

import pytest

import flmq.common
from flmq.common import Code, Config, FitIns, Parameters, ReconnectIns, Status
from flmq.common import typing as contract

FIELDS: dict[str, list[str]] = {
    "Status": ["code", "message"],
    "Parameters": ["tensors", "tensor_type", "names"],
    "FitIns": ["parameters", "config"],
    "FitRes": ["status", "parameters", "num_examples", "metrics"],
    "EvaluateIns": ["parameters", "config"],
    "EvaluateRes": ["status", "loss", "num_examples", "metrics"],
    "GetParametersIns": ["config"],
    "GetParametersRes": ["status", "parameters"],
    "GetPropertiesIns": ["config"],
    "GetPropertiesRes": ["status", "properties"],
    "ReconnectIns": ["seconds"],
    "DisconnectRes": ["reason"],
}


@pytest.mark.parametrize(("name", "fields"), FIELDS.items())
def test_fields_and_their_order(name: str, fields: list[str]) -> None:
    assert [field.name for field in dataclasses.fields(getattr(contract, name))] == fields


def test_every_dataclass_is_in_the_table() -> None:
    found = {name for name in contract.__all__ if dataclasses.is_dataclass(getattr(contract, name))}
    assert found == set(FIELDS)


def test_codes_have_flowers_numbers() -> None:
    assert {code.name: code.value for code in Code} == {
        "OK": 0,
        "GET_PROPERTIES_NOT_IMPLEMENTED": 1,
        "GET_PARAMETERS_NOT_IMPLEMENTED": 2,
        "FIT_NOT_IMPLEMENTED": 3,
        "EVALUATE_NOT_IMPLEMENTED": 4,
    }


def test_a_configure_fit_may_edit_what_it_made() -> None:
    config: Config = {}
    ins = FitIns(Parameters([], ""), config)
    ins.config["lr"] = 0.1
    ins.parameters = Parameters([b"x"], "raw")
    assert ins == FitIns(Parameters([b"x"], "raw"), {"lr": 0.1})
    assert Status(Code.OK, "a") != Status(Code.OK, "b")
    assert ReconnectIns(None).seconds is None


@pytest.mark.parametrize("module", [flmq.common, contract], ids=["common", "typing"])
def test_all_is_sorted_and_there(module: object) -> None:
    names: list[str] = vars(module)["__all__"]
    assert names == sorted(set(names))
    assert all(hasattr(module, name) for name in names)


def test_common_has_every_name_of_typing() -> None:
    assert set(contract.__all__) <= set(flmq.common.__all__)
    for name in contract.__all__:
        assert getattr(flmq.common, name) is getattr(contract, name)
