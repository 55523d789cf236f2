"""The client as the server sees it: four methods, each from its ``*Ins`` to its ``*Res``.

`NumPyClient` is the convenient way to write one; `Client` works with the serialized bytes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import overload

from flmq.common.errors import InvalidReturnValue, UsageError
from flmq.common.logger import logger
from flmq.common.parameter import parameters_problem
from flmq.common.scalars import as_count, as_real, sendable_scalars
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
from flmq.wire.kinds import kind_of

__all__ = ["CallNotImplemented", "Client", "answer"]

_NAMED = 5
"""Number of dropped metrics to name one by one."""


class Client:
    """Base class of clients. Override what the client can do.

    A method that is not overridden answers with its ``*_NOT_IMPLEMENTED`` code. An exception raised
    in a method is reported to the server at once (client id, type, message, end of the traceback)
    and reaches ``aggregate_*`` among ``failures``; the client goes on and serves the next task.

    A program may add kinds of messages (`flmq.wire.kinds`); each calls the method that it names.
    """

    def get_properties(self, ins: GetPropertiesIns) -> GetPropertiesRes:
        """Return this client's properties; ``ins.config`` may say which are wanted."""
        return GetPropertiesRes(_not_implemented(Code.GET_PROPERTIES_NOT_IMPLEMENTED), {})

    def get_parameters(self, ins: GetParametersIns) -> GetParametersRes:
        """Return this client's own model parameters; ``ins.config`` may say which are wanted.

        The server asks one client for them if the strategy has no initial parameters.
        """
        status = _not_implemented(Code.GET_PARAMETERS_NOT_IMPLEMENTED)
        return GetParametersRes(status, _no_parameters())

    def fit(self, ins: FitIns) -> FitRes:
        """Train from ``ins.parameters`` on the client's own data, as ``ins.config`` says.

        Returns the trained parameters (same count, shapes and dtypes as received), the number of
        examples they were trained on (at least 1: their weight in the mean) and metrics.
        """
        return FitRes(_not_implemented(Code.FIT_NOT_IMPLEMENTED), _no_parameters(), 0, {})

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        """Evaluate ``ins.parameters`` on the client's own data, as ``ins.config`` says.

        Returns the loss, the number of examples it was measured on (at least 1: its weight in the
        mean) and metrics.
        """
        return EvaluateRes(_not_implemented(Code.EVALUATE_NOT_IMPLEMENTED), 0.0, 0, {})

    def to_client(self) -> Client:
        """Return the client itself, so that `Client` and `NumPyClient` are used alike."""
        return self


class CallNotImplemented(UsageError):
    """A client has no method for the kind of message that it received."""

    def __init__(self, client: str, kind: str, call: str) -> None:
        """Name the client's class, the kind and the method."""
        super().__init__(
            f"{client} has no method {call!r}, which a message of kind {kind} calls: implement it"
        )


@overload
def answer(client: Client, ins: GetPropertiesIns) -> GetPropertiesRes: ...
@overload
def answer(client: Client, ins: GetParametersIns) -> GetParametersRes: ...
@overload
def answer(client: Client, ins: FitIns) -> FitRes: ...
@overload
def answer(client: Client, ins: EvaluateIns) -> EvaluateRes: ...
@overload
def answer(client: Client, ins: object) -> object: ...
def answer(client: Client, ins: object) -> object:
    """Call the method of ``client`` that ``ins`` asks for, and check what it returns.

    Blocks for as long as the client trains. Exceptions of the method pass through.

    Raises:
        InvalidReturnValue: the method did not return its ``*Res``.
        CallNotImplemented: the client has no such method.
        NotRegistered: the type of ``ins`` belongs to no registered kind of message.
    """
    kind = kind_of(ins)
    # Methods for added kinds are on the NumPyClient itself, not on its adapter.
    own = getattr(client, "numpy_client", client)
    method = getattr(client, kind.call, None) or getattr(own, kind.call, None)
    if not callable(method):
        raise CallNotImplemented(type(own).__name__, kind.name, kind.call)
    return _checked(client, kind.call, method(ins), kind.res)


_EXAMPLES: dict[type, str] = {
    GetPropertiesRes: 'GetPropertiesRes(Status(Code.OK, "Success"), {"gpu": True})',
    GetParametersRes: 'GetParametersRes(Status(Code.OK, "Success"), parameters)',
    FitRes: 'FitRes(Status(Code.OK, "Success"), parameters, 10, {"accuracy": 0.95})',
    EvaluateRes: 'EvaluateRes(Status(Code.OK, "Success"), 0.5, 10, {"accuracy": 0.95})',
}


def _checked(client: Client, method: str, res: object, expected: type) -> object:
    """Return ``res`` if it is what ``method`` should return by its kind."""
    what = f"{type(getattr(client, 'numpy_client', client)).__name__}.{method}"
    if isinstance(res, expected):
        if hasattr(res, "parameters"):
            _check_parameters(what, res.parameters)
        if isinstance(res, FitRes | EvaluateRes):
            return _with_sendable_metrics(_with_plain_numbers(res), what)
        return res
    said = f"{what} returned a {type(res).__name__}, not a {expected.__name__}"
    if expected in _EXAMPLES:
        said += (
            f". Example:\n\n    return {_EXAMPLES[expected]}\n\n"
            "To return numpy arrays instead, subclass flmq.client.NumPyClient."
        )
    raise InvalidReturnValue(said)


def _with_plain_numbers(res: FitRes | EvaluateRes) -> FitRes | EvaluateRes:
    """Return ``res`` with Python's numbers; what is none is left for the wire to name."""
    count = as_count(res.num_examples)
    if count is not None:
        res = replace(res, num_examples=count)
    if isinstance(res, EvaluateRes) and (loss := as_real(res.loss)) is not None:
        res = replace(res, loss=loss)
    return res


def _with_sendable_metrics(res: FitRes | EvaluateRes, what: str) -> FitRes | EvaluateRes:
    """Return ``res`` without metrics that cannot be sent; training is not lost with them."""
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
    """Refuse what is not `Parameters` of bytes, before anything reads their lengths."""
    if (problem := parameters_problem(parameters)) is not None:
        raise InvalidReturnValue(f"{what} returned {problem}")


def _not_implemented(code: Code) -> Status:
    method = code.name.removesuffix("_NOT_IMPLEMENTED").lower()
    return Status(code, f"Client does not implement `{method}`")


def _no_parameters() -> Parameters:
    return Parameters(tensors=[], tensor_type="")
