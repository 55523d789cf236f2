"""What users return: numpy's numbers are converted, the rest is named in the error."""

from __future__ import annotations

import enum
import math
from typing import Any

import numpy as np
import pytest

from flmq.common.errors import InvalidReturnValue
from flmq.common.phase import Phase
from flmq.common.typing import (
    Code,
    DisconnectRes,
    EvaluateRes,
    FitIns,
    FitRes,
    GetPropertiesRes,
    Parameters,
    ReconnectIns,
    Status,
)
from flmq.wire.bodies import Body
from flmq.wire.codec import decode, encode
from flmq.wire.envelopes import Presence, PresenceKind, Reply, Task
from tests.wire.cases import MODEL, NOTHING, OK, exact, reply, task


class Level(enum.IntEnum):
    """An int to Python, as PyTorch and others return them."""

    HIGH = 3


class TestScalarsOfNumpy:
    @pytest.mark.parametrize(
        ("given", "arrives"),
        [
            (np.float32(0.5), 0.5),
            (np.float16(0.1), float(np.float16(0.1))),
            (np.float64(0.1), 0.1),
            (np.longdouble(2.5), 2.5),
            (np.float32("nan"), math.nan),
            (np.int64(-3), -3),
            (np.uint8(255), 255),
            (np.uint64(2**63 - 1), 2**63 - 1),
            (np.bool_(True), True),
            (np.str_("x"), "x"),
            (np.bytes_(b"x"), b"x"),
            (Level.HIGH, 3),
        ],
    )
    def test_arrive_as_pythons(self, given: Any, arrives: Any) -> None:
        got = decode(encode(task(FitIns(NOTHING, {"key": given}))))
        assert isinstance(got, Task)
        assert isinstance(got.ins, FitIns)
        assert exact(got.ins.config["key"]) == exact(arrives)

    def test_numbers_of_results(self) -> None:
        loss: Any = np.float32(0.25)
        examples: Any = np.int32(7)
        got = decode(encode(reply(EvaluateRes(OK, loss, examples, {}), Phase.EVALUATE)))
        assert isinstance(got, Reply)
        assert exact(got.res) == exact(EvaluateRes(OK, 0.25, 7, {}))

    def test_an_int_is_a_loss(self) -> None:
        got = decode(encode(reply(EvaluateRes(OK, 1, 7, {}), Phase.EVALUATE)))
        assert isinstance(got, Reply)
        assert exact(got.res) == exact(EvaluateRes(OK, 1.0, 7, {}))


class TestTensors:
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_may_be_any_bytes(self, kind: type) -> None:
        given = Parameters([kind(tensor) for tensor in MODEL.tensors], MODEL.tensor_type)
        got = decode(encode(reply(FitRes(OK, given, 1, {}))))
        assert isinstance(got, Reply)
        assert isinstance(got.res, FitRes)
        assert got.res.parameters == MODEL
        assert [type(tensor) for tensor in got.res.parameters.tensors] == [bytes] * 3


def _fit(**changes: Any) -> Body:
    fields: dict[str, Any] = {
        "status": OK,
        "parameters": NOTHING,
        "num_examples": 1,
        "metrics": {},
    }
    return reply(FitRes(**{**fields, **changes}))


def _metric(value: Any) -> Body:
    return _fit(metrics={"key": value})


def _evaluate(loss: Any) -> Body:
    return reply(EvaluateRes(OK, loss, 1, {}), Phase.EVALUATE)


def _any(value: Any) -> Any:
    return value


UNSENDABLE: list[tuple[Body, str]] = [
    (
        _metric([1.0]),
        "FitRes.metrics['key'] is a list: allowed are bool, int, float, str and bytes",
    ),
    (_metric(None), "FitRes.metrics['key'] is a None: allowed are"),
    (_metric({}), "FitRes.metrics['key'] is a dict: allowed are"),
    (_metric(1j), "FitRes.metrics['key'] is a complex: allowed are"),
    (_metric(np.array(1.0)), "FitRes.metrics['key'] is a ndarray: allowed are"),
    (_metric(bytearray(b"x")), "FitRes.metrics['key'] is a bytearray: allowed are"),
    (_metric(2**63), "FitRes.metrics['key'] does not fit 64 bits with sign: 9223372036854775808"),
    (_metric(-(2**63) - 1), "does not fit 64 bits"),
    (_metric(np.uint64(2**63)), "does not fit 64 bits"),
    (_metric(10**10_000), "does not fit 64 bits with sign: an int of 33220 bits"),
    (_metric("\ud800"), "FitRes.metrics['key'] is no valid Unicode text"),
    (_fit(metrics={"\ud800": 1}), "a key of FitRes.metrics is no valid Unicode text"),
    (_fit(metrics={3: 1}), "FitRes.metrics has the key 3 (int): use str keys"),
    (_fit(metrics=None), "FitRes.metrics is a None: it must be a dict of scalars"),
    (_fit(metrics=[("a", 1)]), "FitRes.metrics is a list: it must be a dict of scalars"),
    (_fit(num_examples=1.0), "FitRes.num_examples is a float: it must be an int"),
    (_fit(num_examples=None), "FitRes.num_examples is a None: it must be an int"),
    (_fit(num_examples=2**63), "FitRes.num_examples does not fit 64 bits"),
    (_fit(status=Code.OK), "FitRes.status is a Code: it must be a Status"),
    (_fit(status=Status(_any(0), "")), "FitRes.status.code is a int: it must be a Code"),
    (_fit(status=Status(Code.OK, _any(None))), "FitRes.status.message is a None"),
    (_fit(parameters=[np.zeros(2)]), "FitRes.parameters is a list: it must be a Parameters"),
    (_fit(parameters=Parameters(_any(b""), "")), "FitRes.parameters.tensors is a bytes"),
    (_fit(parameters=Parameters([b"", _any(np.zeros(2))], "")), "FitRes.parameters.tensors[1] is"),
    (_fit(parameters=Parameters([], _any(None))), "FitRes.parameters.tensor_type is a None"),
    (_evaluate("0.5"), "EvaluateRes.loss is a str: it must be a float"),
    (_evaluate(None), "EvaluateRes.loss is a None: it must be a float"),
    (_evaluate(10**400), "EvaluateRes.loss does not fit a double: an int of 1329 bits"),
    (task(FitIns(NOTHING, {"lr": _any([0.1])})), "FitIns.config['lr'] is a list"),
    (task(ReconnectIns(_any(1.5)), Phase.RECONNECT), "ReconnectIns.seconds is a float"),
    (reply(DisconnectRes(_any(None)), Phase.RECONNECT), "DisconnectRes.reason is a None"),
    (
        reply(GetPropertiesRes(OK, {"a": _any(())}), Phase.GET_PROPERTIES),
        "GetPropertiesRes.properties['a'] is a tuple",
    ),
    (
        Presence(PresenceKind.HELLO, "c", "s", "i", {"gpus": _any([0])}),
        "Presence.properties['gpus'] is a list",
    ),
]


@pytest.mark.parametrize(("body", "words"), UNSENDABLE, ids=[words for _, words in UNSENDABLE])
def test_what_cannot_be_sent_is_named(body: Body, words: str) -> None:
    with pytest.raises(InvalidReturnValue) as caught:
        encode(body)
    assert words in str(caught.value)
