"""The client: what it answers where nothing is overridden, and what it may not return."""

from __future__ import annotations

from typing import Any

import pytest

from flmq.client.client import Client, answer
from flmq.client.context import ClientContext
from flmq.client.numpy_client import NumPyClient
from flmq.client.typing import to_client
from flmq.common import (
    Code,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Parameters,
    Status,
)
from flmq.common.errors import InvalidReturnValue

OK = Status(Code.OK, "Success")
NO_PARAMETERS = Parameters([], "")
ClientIns = GetPropertiesIns | GetParametersIns | FitIns | EvaluateIns
INS: list[ClientIns] = [
    GetPropertiesIns({}),
    GetParametersIns({}),
    FitIns(NO_PARAMETERS, {}),
    EvaluateIns(NO_PARAMETERS, {}),
]


class Complete(Client):
    """Answers all four calls, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[ClientIns] = []

    def get_properties(self, ins: GetPropertiesIns) -> GetPropertiesRes:
        self.asked.append(ins)
        return GetPropertiesRes(OK, {"gpu": True})

    def get_parameters(self, ins: GetParametersIns) -> GetParametersRes:
        self.asked.append(ins)
        return GetParametersRes(OK, NO_PARAMETERS)

    def fit(self, ins: FitIns) -> FitRes:
        self.asked.append(ins)
        return FitRes(OK, NO_PARAMETERS, 3, {})

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        self.asked.append(ins)
        return EvaluateRes(OK, 0.5, 3, {})


def test_each_call_reaches_its_method() -> None:
    client = Complete()
    answers: list[Any] = [answer(client, ins) for ins in INS]
    assert answers == [
        GetPropertiesRes(OK, {"gpu": True}),
        GetParametersRes(OK, NO_PARAMETERS),
        FitRes(OK, NO_PARAMETERS, 3, {}),
        EvaluateRes(OK, 0.5, 3, {}),
    ]
    assert [id(ins) for ins in client.asked] == [id(ins) for ins in INS]


@pytest.mark.parametrize("client", [Client(), NumPyClient().to_client()])
def test_what_is_left_out_answers_that_it_is_not_implemented(client: Client) -> None:
    """Codes and messages are those of flwr 1.41."""
    answers: list[Any] = [answer(client, ins) for ins in INS]
    statuses = [res.status for res in answers]
    assert statuses == [
        Status(Code.GET_PROPERTIES_NOT_IMPLEMENTED, "Client does not implement `get_properties`"),
        Status(Code.GET_PARAMETERS_NOT_IMPLEMENTED, "Client does not implement `get_parameters`"),
        Status(Code.FIT_NOT_IMPLEMENTED, "Client does not implement `fit`"),
        Status(Code.EVALUATE_NOT_IMPLEMENTED, "Client does not implement `evaluate`"),
    ]


def test_unimplemented_answers_hold_nothing() -> None:
    assert answer(Client(), FitIns(NO_PARAMETERS, {})).parameters == NO_PARAMETERS
    assert answer(Client(), FitIns(NO_PARAMETERS, {})).num_examples == 0
    assert answer(Client(), EvaluateIns(NO_PARAMETERS, {})).loss == 0.0
    assert answer(Client(), GetPropertiesIns({})).properties == {}


@pytest.mark.parametrize(
    ("method", "ins", "expected"),
    [
        ("get_properties", INS[0], "GetPropertiesRes"),
        ("get_parameters", INS[1], "GetParametersRes"),
        ("fit", INS[2], "FitRes"),
        ("evaluate", INS[3], "EvaluateRes"),
    ],
)
def test_a_wrong_return_value_is_answered_with_an_example(
    method: str, ins: Any, expected: str
) -> None:
    class Forgetful(Client):
        pass

    setattr(Forgetful, method, lambda self, ins: None)
    with pytest.raises(InvalidReturnValue) as error:
        answer(Forgetful(), ins)
    text = str(error.value)
    assert text.startswith(f"Forgetful.{method} returned a NoneType, not a {expected}. Example:")
    assert f"    return {expected}(Status(Code.OK" in text
    assert "NumPyClient" in text


def test_the_example_for_fit_is_what_it_says() -> None:
    """The texts are programs: each, evaluated, is accepted as an answer."""

    class Broken(Client):
        def fit(self, ins: FitIns) -> Any:
            return 1

    with pytest.raises(InvalidReturnValue) as error:
        answer(Broken(), FitIns(NO_PARAMETERS, {}))
    line = next(line for line in str(error.value).splitlines() if "return " in line)
    names = {"FitRes": FitRes, "Status": Status, "Code": Code, "parameters": NO_PARAMETERS}
    assert isinstance(eval(line.split("return ")[1], names), FitRes)


def test_what_a_method_raises_passes_through() -> None:
    class Failing(Client):
        def fit(self, ins: FitIns) -> FitRes:
            raise FileNotFoundError("no data here")

    with pytest.raises(FileNotFoundError, match="no data here"):
        answer(Failing(), FitIns(NO_PARAMETERS, {}))


def test_a_client_may_stand_for_itself_or_call_to_client() -> None:
    client = Complete()
    assert client.to_client() is client
    assert to_client(client) is client
    assert isinstance(to_client(NumPyClient()), Client)


@pytest.mark.parametrize("thing", [None, "client", Complete, NumPyClient, lambda cid: Complete()])
def test_what_is_no_client_is_answered_with_an_example(thing: object) -> None:
    with pytest.raises(InvalidReturnValue, match="def client") as error:
        to_client(thing)
    if isinstance(thing, type):
        assert f"not the class {thing.__name__}" in str(error.value)


def test_a_context_needs_only_who_and_for_what() -> None:
    context = ClientContext("mnist", "alice", "main")
    assert context.properties == {}
    assert context.state_dir is None
    with pytest.raises(AttributeError):
        context.job = "other"  # type: ignore[misc]
