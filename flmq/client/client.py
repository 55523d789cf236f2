"""The client as the server sees it: four calls, each from its ``*Ins`` to its ``*Res``.

`NumPyClient` is the comfortable way to write one; `Client` is for whoever wants the bytes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar, cast, overload

from flmq.common.errors import InvalidReturnValue
from flmq.common.logger import logger
from flmq.common.parameter import parameters_problem
from flmq.common.scalars import sendable_scalars
from flmq.common.typing import (
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

__all__ = ["Client", "ClientIns", "ClientRes", "answer"]

ClientIns = GetPropertiesIns | GetParametersIns | FitIns | EvaluateIns
ClientRes = GetPropertiesRes | GetParametersRes | FitRes | EvaluateRes

_Res = TypeVar("_Res", bound=ClientRes)

_NAMED = 5
"""Metrics that are left out and named one by one."""


class Client:
    """Base class of clients. Override what the client can do.

    A method that is left out answers with its ``*_NOT_IMPLEMENTED`` code. An exception raised in a
    method is reported to the server at once (client id, type, message, end of the traceback) and
    reaches ``aggregate_*`` among ``failures``; the client goes on and serves the next task.
    """

    def get_properties(self, ins: GetPropertiesIns) -> GetPropertiesRes:
        """Return what this client tells of itself, guided by ``ins.config``."""
        return GetPropertiesRes(_not_implemented(Code.GET_PROPERTIES_NOT_IMPLEMENTED), {})

    def get_parameters(self, ins: GetParametersIns) -> GetParametersRes:
        """Return this client's own model parameters, guided by ``ins.config``.

        The server asks one client for them where the strategy has no initial parameters.
        """
        status = _not_implemented(Code.GET_PARAMETERS_NOT_IMPLEMENTED)
        return GetParametersRes(status, _no_parameters())

    def fit(self, ins: FitIns) -> FitRes:
        """Train from ``ins.parameters`` on the client's own data, as ``ins.config`` says.

        Returns the trained parameters (as many tensors as came, same shapes and dtypes), the
        number of examples they were trained on (at least 1: their weight in the mean) and metrics.
        """
        return FitRes(_not_implemented(Code.FIT_NOT_IMPLEMENTED), _no_parameters(), 0, {})

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        """Measure ``ins.parameters`` on the client's own data, as ``ins.config`` says.

        Returns the loss, the number of examples it was measured on (at least 1: its weight in the
        mean) and metrics.
        """
        return EvaluateRes(_not_implemented(Code.EVALUATE_NOT_IMPLEMENTED), 0.0, 0, {})

    def to_client(self) -> Client:
        """Return the client itself, so that `Client` and `NumPyClient` are used alike."""
        return self


@overload
def answer(client: Client, ins: GetPropertiesIns) -> GetPropertiesRes: ...
@overload
def answer(client: Client, ins: GetParametersIns) -> GetParametersRes: ...
@overload
def answer(client: Client, ins: FitIns) -> FitRes: ...
@overload
def answer(client: Client, ins: EvaluateIns) -> EvaluateRes: ...
def answer(client: Client, ins: ClientIns) -> ClientRes:
    """Call the method of ``client`` that ``ins`` asks for, and check what it returns.

    Blocks for as long as the client trains. What the method raises passes through.

    Raises:
        InvalidReturnValue: the method returned something else than its ``*Res``.
    """
    match ins:
        case GetPropertiesIns():
            return _checked(client, "get_properties", client.get_properties(ins), GetPropertiesRes)
        case GetParametersIns():
            return _checked(client, "get_parameters", client.get_parameters(ins), GetParametersRes)
        case FitIns():
            return _checked(client, "fit", client.fit(ins), FitRes)
        case EvaluateIns():
            return _checked(client, "evaluate", client.evaluate(ins), EvaluateRes)


_EXAMPLES: dict[type, str] = {
    GetPropertiesRes: 'GetPropertiesRes(Status(Code.OK, "Success"), {"gpu": True})',
    GetParametersRes: 'GetParametersRes(Status(Code.OK, "Success"), parameters)',
    FitRes: 'FitRes(Status(Code.OK, "Success"), parameters, 10, {"accuracy": 0.95})',
    EvaluateRes: 'EvaluateRes(Status(Code.OK, "Success"), 0.5, 10, {"accuracy": 0.95})',
}


def _checked(client: Client, method: str, res: object, expected: type[_Res]) -> _Res:
    """``res``, if it is what the contract says that ``method`` returns."""
    if isinstance(res, expected):
        what = f"{type(getattr(client, 'numpy_client', client)).__name__}.{method}"
        if isinstance(res, FitRes | GetParametersRes):
            _check_parameters(what, res.parameters)
        if isinstance(res, FitRes | EvaluateRes):
            return cast("_Res", _with_sendable_metrics(res, what))
        return res
    raise InvalidReturnValue(
        f"{type(client).__name__}.{method} returned a {type(res).__name__}, not a "
        f"{expected.__name__}. Example:\n\n    return {_EXAMPLES[expected]}\n\n"
        "To return numpy arrays instead, subclass flmq.client.NumPyClient."
    )


def _with_sendable_metrics(res: FitRes | EvaluateRes, what: str) -> FitRes | EvaluateRes:
    """``res`` without the metrics that cannot be sent: what was trained is not lost for them."""
    metrics, left_out = sendable_scalars(res.metrics)
    if not left_out:
        return replace(res, metrics=metrics)
    shown = ", ".join(left_out[:_NAMED]) + (", ..." if len(left_out) > _NAMED else "")
    said = f"metrics that {what} returned are left out, for they are no scalars: {shown}"
    logger.warning("%s; give bool, bytes, float, int of 64 bits or str", said)
    status = res.status
    if isinstance(status, Status) and isinstance(status.message, str):
        status = Status(status.code, f"{status.message}; {said}")
    return replace(res, metrics=metrics, status=status)


def _check_parameters(what: str, parameters: object) -> None:
    """Refuse what is no `Parameters` of bytes, before anything takes their lengths."""
    if (problem := parameters_problem(parameters)) is not None:
        raise InvalidReturnValue(f"{what} returned {problem}")


def _not_implemented(code: Code) -> Status:
    method = code.name.removesuffix("_NOT_IMPLEMENTED").lower()
    return Status(code, f"Client does not implement `{method}`")


def _no_parameters() -> Parameters:
    return Parameters(tensors=[], tensor_type="")
