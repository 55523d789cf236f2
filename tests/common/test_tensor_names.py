"""Names at construction: typed errors, and models that take the names of others."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest

from flmq.client import NumPyClient
from flmq.common import FitIns, Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.errors import InvalidReturnValue, InvalidTensorNames, MalformedMessage
from flmq.common.parameter import named_like, parameters_problem
from flmq.common.tensor_names import tensor_called

ARRAYS = [np.zeros(2), np.ones(())]
BARE = ndarrays_to_parameters(ARRAYS)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a",), "1 names for 2 tensors: give each tensor one, or none"),
        (("a", "b", "c"), "3 names for 2 tensors"),
        (("a", "a"), "tensors 0 and 1 have the same name, 'a'"),
        (("a", ""), "the name of tensor 1, '' of 0 characters, is not 1 to 256 printable ones"),
        (("a", "b\r\n"), "the name of tensor 1, 'b\\r\\n' of 3 characters"),
        (("a", 5), "the name of tensor 1 is a int, not a str"),
    ],
)
def test_names_that_cannot_be_are_refused_at_construction(names: Any, words: str) -> None:
    with pytest.raises(InvalidTensorNames) as caught:
        ndarrays_to_parameters(ARRAYS, names=names)
    assert words in str(caught.value)
    with pytest.raises(ValueError, match=re.escape(words)):
        Parameters(BARE.tensors, "numpy.ndarray", names)


def test_one_text_is_no_list_of_names() -> None:
    with pytest.raises(InvalidTensorNames, match="one text"):
        Parameters([b"", b""], "raw", "ab")  # type: ignore[arg-type]


def test_names_assigned_later_are_checked_when_the_model_is_given_to_somebody() -> None:
    parameters = ndarrays_to_parameters(ARRAYS)
    parameters.names = ("a", "a")
    assert parameters_problem(parameters) == (
        "parameters with tensors 0 and 1 have the same name, 'a'"
    )


def test_any_iterable_of_names_will_do() -> None:
    named = ndarrays_to_parameters(ARRAYS, names=(name for name in "ab"))
    assert named.names == ("a", "b")
    assert Parameters(BARE.tensors, "numpy.ndarray", ["a", "b"]) == named  # type: ignore[arg-type]
    assert named != BARE  # equal are bytes, type and names
    assert copy.deepcopy(named) == pickle.loads(pickle.dumps(named)) == named


def test_a_model_takes_the_names_of_another() -> None:
    model = ndarrays_to_parameters(ARRAYS, names=("a", "b"))
    assert named_like(BARE, model) == model
    assert named_like(BARE, BARE) is BARE
    own = ndarrays_to_parameters(ARRAYS, names=("c", "d"))
    assert named_like(own, model) is own
    other = ndarrays_to_parameters(ARRAYS[:1])
    assert named_like(other, model) is other


def test_a_numpy_clients_mistakes_are_told_by_name() -> None:
    class Wrong(NumPyClient):
        def fit(self, parameters: Any, config: Any) -> Any:
            return config["returned"], 1, {}

    model = ndarrays_to_parameters(ARRAYS, names=("a", "fc.bias"))
    client = Wrong().to_client()
    for second, words in (
        ([1.0], "returned a list as tensor fc.bias, not a numpy array"),
        (np.array([{}]), "parameter fc.bias: "),
    ):
        config: Any = {"returned": [np.zeros(2), second]}
        with pytest.raises(InvalidReturnValue, match=words):
            client.fit(FitIns(model, config))
    fitted = client.fit(FitIns(model, {"returned": ARRAYS}))  # type: ignore[dict-item]
    assert fitted.parameters.names == ()  # the server knows them
    with pytest.raises(InvalidReturnValue, match=r"parameter fc\.bias: "):
        ndarrays_to_parameters([np.zeros(1), np.array([{}])], names=model.names)


def test_errors_call_a_tensor_by_its_name_if_it_has_one() -> None:
    assert tensor_called(1) == "tensor 1"
    assert tensor_called(1, ("a", "fc.bias")) == "tensor fc.bias"
    assert tensor_called(2, ("a", "fc.bias")) == "tensor 2"
    broken = Parameters([BARE.tensors[0], b"x"], "numpy.ndarray", ("a", "fc.bias"))
    with pytest.raises(MalformedMessage, match=r"^tensor fc\.bias: "):
        parameters_to_ndarrays(broken)
