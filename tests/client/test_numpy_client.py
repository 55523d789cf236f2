"""The numpy client: arrays through and through, and mistakes answered with what is right."""

from __future__ import annotations

import gc
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from flmq.client.client import Client, answer
from flmq.client.numpy_client import NumPyClient
from flmq.common import (
    Code,
    Config,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetPropertiesIns,
    Metrics,
    NDArray,
    NDArrays,
    Properties,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.common.errors import InvalidReturnValue
from flmq.wire import FileParameters, parameters_to_send

OK = Status(Code.OK, "Success")
MODEL = ndarrays_to_parameters([np.array([[1, 2], [3, 4]], np.float32), np.array(7, np.int64)])


class Trainer(NumPyClient):
    """Adds one to each tensor, in place."""

    def get_properties(self, config: Config) -> Properties:
        return {"wanted": config["what"]}

    def get_parameters(self, config: Config) -> NDArrays:
        return [np.zeros(2, np.float16)]

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        for tensor in parameters:
            tensor += 1
        return parameters, 10, {"lr": config["lr"]}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return float(sum(tensor.sum() for tensor in parameters)), 5, {"accuracy": 0.5}


class Returns(NumPyClient):
    """Returns whatever it is told from each method."""

    def __init__(self, returned: Any) -> None:
        self.returned = returned

    def get_properties(self, config: Config) -> Any:
        return self.returned

    def get_parameters(self, config: Config) -> Any:
        return self.returned

    def fit(self, parameters: NDArrays, config: Config) -> Any:
        return self.returned

    def evaluate(self, parameters: NDArrays, config: Config) -> Any:
        return self.returned


def fit(returned: Any) -> FitRes:
    return answer(Returns(returned).to_client(), FitIns(MODEL, {}))


def evaluate(returned: Any) -> EvaluateRes:
    return answer(Returns(returned).to_client(), EvaluateIns(MODEL, {}))


def test_arrays_come_and_go() -> None:
    client = Trainer().to_client()
    res = answer(client, FitIns(MODEL, {"lr": 0.1}))
    assert (res.status, res.num_examples, res.metrics) == (OK, 10, {"lr": 0.1})
    trained = parameters_to_ndarrays(res.parameters)
    assert [tensor.tolist() for tensor in trained] == [[[2, 3], [4, 5]], 8]
    assert [tensor.dtype for tensor in trained] == [np.float32, np.int64]
    assert answer(client, EvaluateIns(MODEL, {})) == EvaluateRes(OK, 17.0, 5, {"accuracy": 0.5})
    assert answer(client, GetPropertiesIns({"what": "gpu"})).properties == {"wanted": "gpu"}
    (own,) = parameters_to_ndarrays(answer(client, GetParametersIns({})).parameters)
    assert own.dtype == np.float16
    assert own.tolist() == [0.0, 0.0]


def test_training_in_place_leaves_the_instructions_as_they_were() -> None:
    before = list(MODEL.tensors)
    answer(Trainer().to_client(), FitIns(MODEL, {"lr": 0.1}))
    assert MODEL.tensors == before


def test_only_what_is_overridden_is_implemented() -> None:
    class EvaluatesOnly(NumPyClient):
        def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
            return 0.5, 1, {}

    client = EvaluatesOnly().to_client()
    assert answer(client, EvaluateIns(MODEL, {})).status == OK
    assert answer(client, FitIns(MODEL, {})).status.code is Code.FIT_NOT_IMPLEMENTED


@given(
    hnp.arrays(
        hnp.floating_dtypes(endianness="<", sizes=(16, 32, 64))
        | hnp.integer_dtypes(endianness="<"),
        hnp.array_shapes(min_dims=0, min_side=0),
    )
)
def test_what_fit_returns_arrives_as_it_is(tensor: NDArray) -> None:
    (arrived,) = parameters_to_ndarrays(fit(([tensor], 1, {})).parameters)
    assert (arrived.dtype, arrived.shape) == (tensor.dtype, tensor.shape)
    assert arrived.tobytes() == tensor.tobytes()


def test_numpys_scalars_and_tuples_of_arrays_mean_the_same_as_pythons() -> None:
    array = np.ones(2, np.float32)
    res = fit(((array, np.float32(3)), np.int64(4), {"accuracy": np.float32(0.5)}))
    assert [type(res.num_examples), type(res.metrics["accuracy"])] == [int, float]
    assert [tensor.tolist() for tensor in parameters_to_ndarrays(res.parameters)] == [[1, 1], 3]
    for loss in (np.float32(0.5), np.array(0.5), 0.5):
        measured = evaluate((loss, 1, {}))
        assert (measured.loss, type(measured.loss)) == (0.5, float)
    assert evaluate((1, 1, {})).loss == 1.0


class Tensor0d:
    """As PyTorch's and JAX's scalars are: a shape, and a number to take out."""

    shape = ()

    def __init__(self, value: Any) -> None:
        self.value = value

    def item(self) -> Any:
        return self.value


@pytest.mark.parametrize("ten", [10, 10.0, np.int8(10), np.array(10), np.array(10.0), Tensor0d(10)])
def test_a_number_of_examples_is_any_whole_number(ten: Any) -> None:
    for res in (fit((ARRAYS, ten, {})), evaluate((0.5, ten, {}))):
        assert (res.num_examples, type(res.num_examples)) == (10, int)


@pytest.mark.parametrize("bad", [True, np.bool_(True), np.array([10]), 10.5, Tensor0d(True), "10"])
def test_what_is_no_whole_number_is_no_number_of_examples(bad: Any) -> None:
    with pytest.raises(InvalidReturnValue):
        fit((ARRAYS, bad, {}))


@pytest.mark.parametrize(
    "half", [0.5, np.float16(0.5), np.array(0.5, "bfloat16"), Tensor0d(0.5), Fraction(1, 2)]
)
def test_a_loss_is_any_real_number(half: Any) -> None:
    measured = evaluate((half, 1, {}))
    assert (measured.loss, type(measured.loss)) == (0.5, float)


def test_a_client_that_answers_itself_may_give_the_same_numbers() -> None:
    class Own(Client):
        def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
            half: Any = Tensor0d(0.5)
            three: Any = np.int64(3)
            return EvaluateRes(OK, half, three, {"a": half})

    res = answer(Own(), EvaluateIns(MODEL, {}))
    assert (res.loss, res.num_examples, res.metrics) == (0.5, 3, {"a": 0.5})
    assert [type(res.loss), type(res.num_examples)] == [float, int]


ARRAYS = [np.ones(2)]


@pytest.mark.parametrize(
    ("returned", "outline"),
    [
        (None, "NoneType"),
        (ARRAYS, "list"),
        ((ARRAYS, 10), "(list, int)"),
        ((ARRAYS, 10, {}, "more"), "(list, int, dict, str)"),
        ((np.ones(2), 10, {}), "(numpy.ndarray, int, dict)"),
        ((ARRAYS, 10.5, {}), "(list, float, dict)"),
        ((ARRAYS, True, {}), "(list, bool, dict)"),
    ],
)
def test_fit_that_returns_something_else_sees_signature_and_example(
    returned: Any, outline: str
) -> None:
    with pytest.raises(InvalidReturnValue) as error:
        fit(returned)
    text = str(error.value)
    assert text.startswith(f"Returns.fit returned {outline}.\n")
    assert "tuple[list[numpy.ndarray], int, dict[str, Scalar]]" in text
    assert 'return model.get_weights(), 10, {"accuracy": 0.95}' in text


@pytest.mark.parametrize(
    ("returned", "outline"),
    [
        (0.5, "float"),
        ((0.5, 10), "(float, int)"),
        ((10, 0.5, {}), "(int, float, dict)"),
        (("0.5", 10, {}), "(str, int, dict)"),
        ((np.ones(2), 10, {}), "(numpy.ndarray, int, dict)"),
        ((True, 10, {}), "(bool, int, dict)"),
    ],
)
def test_evaluate_that_returns_something_else_sees_signature_and_example(
    returned: Any, outline: str
) -> None:
    with pytest.raises(InvalidReturnValue) as error:
        evaluate(returned)
    text = str(error.value)
    assert text.startswith(f"Returns.evaluate returned {outline}.\n")
    assert "tuple[float, int, dict[str, Scalar]]" in text
    assert 'return 0.5, 10, {"accuracy": 0.95}' in text


def test_a_tensor_that_is_no_array_is_named_with_what_converts_it() -> None:
    class Tensor:
        """Looks like a framework's."""

    with pytest.raises(InvalidReturnValue, match=r"Returns\.fit .*Tensor as tensor 1.*detach"):
        fit(([np.ones(2), Tensor()], 10, {}))
    with pytest.raises(InvalidReturnValue, match="get_parameters returned a float as tensor 0"):
        answer(Returns([0.5]).to_client(), GetParametersIns({}))
    with pytest.raises(InvalidReturnValue, match=r"get_parameters returned numpy\.ndarray"):
        answer(Returns(np.ones(2)).to_client(), GetParametersIns({}))


def test_an_array_of_objects_is_refused() -> None:
    with pytest.raises(InvalidReturnValue, match="parameter 0"):
        fit(([np.array([None])], 10, {}))


class _Loud:
    """Cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError


METRICS: dict[Any, Any] = {
    "zero_d": np.array(0.5),
    "half": np.float16(0.5),
    "long": np.longdouble(0.5),
    "yes": np.bool_(True),
    "count": np.int32(3),
    "fraction": Fraction(1, 2),
    "decimal": Decimal("0.5"),
    "bfloat16": np.array(0.5, "bfloat16"),
    "bfloat16_scalar": np.array(0.5, "bfloat16")[()],
    "tensor": Tensor0d(0.5),
    "nested": {"a": 0.5},
    "broken": Tensor0d(None),
    "cm": np.ones((2, 2)),
    "list": [0.5],
    "none": None,
    "huge": 2**80,
    "complex": 1j,
    "surrogate": "\ud800",
    "loud": _Loud(),
    3: "key",
}
KEPT = {
    "zero_d": 0.5,
    "half": 0.5,
    "long": 0.5,
    "yes": True,
    "count": 3,
    "fraction": 0.5,
    "decimal": 0.5,
    "bfloat16": 0.5,
    "bfloat16_scalar": 0.5,
    "tensor": 0.5,
}


def test_no_metric_costs_what_was_trained(caplog: pytest.LogCaptureFixture) -> None:
    res = fit((ARRAYS, 10, METRICS))
    assert (res.num_examples, res.metrics) == (10, KEPT)
    assert len(res.parameters.tensors) == len(ARRAYS)
    for said in (res.status.message, caplog.text):
        assert "metrics that Returns.fit returned are left out" in said
        assert "'cm': ndarray array([[1., 1.], [1., 1.]])" in said
    measured = evaluate((0.5, 10, METRICS))
    assert (measured.loss, measured.metrics) == (0.5, KEPT)
    assert "'nested': dict" in measured.status.message


@pytest.mark.parametrize("metrics", [None, [], 0.5, "accuracy"])
def test_metrics_that_are_no_dict_are_left_out(metrics: Any) -> None:
    assert fit((ARRAYS, 10, metrics)).metrics == {}
    assert evaluate((0.5, 10, metrics)).metrics == {}


def test_properties_that_are_no_scalars_are_named() -> None:
    with pytest.raises(InvalidReturnValue, match=r"properties that Returns\.get_properties .* 1:"):
        answer(Returns({1: "x"}).to_client(), GetPropertiesIns({}))


class TestLargeReplies:
    """A reply as large as these is made a tensor at a time, in a file, and not in memory."""

    @pytest.fixture(autouse=True)
    def all_are_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        in_files = partial(parameters_to_send, large=1)
        monkeypatch.setattr("flmq.client.numpy_client.parameters_to_send", in_files)

    def test_it_is_what_was_returned_even_if_that_is_changed_later(self) -> None:
        arrays = [np.arange(6.0).reshape(2, 3), np.array(7), np.empty((0, 2), np.float32)]
        res = fit((arrays, 3, {}))
        assert isinstance(res.parameters, FileParameters)
        before = ndarrays_to_parameters(arrays)
        arrays[0][:] = -1
        assert [bytes(tensor) for tensor in res.parameters.tensors] == before.tensors

    def test_its_file_goes_with_it(self) -> None:
        res = fit(([np.ones(9)], 3, {}))
        assert isinstance(res.parameters, FileParameters)
        path = res.parameters.path
        assert path.exists()
        del res
        gc.collect()
        assert not path.exists()

    def test_an_array_that_cannot_be_sent_is_named(self) -> None:
        arrays = [np.ones(9), np.array([object()])]
        with pytest.raises(InvalidReturnValue, match="parameter 1: ndarray of dtype object"):
            fit((arrays, 3, {}))
