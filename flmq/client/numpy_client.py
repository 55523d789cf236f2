"""A client interface for numpy: lists of arrays in, lists of arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np

from flmq.client.client import Client
from flmq.common.errors import InvalidReturnValue
from flmq.common.parameter import parameters_to_ndarrays
from flmq.common.scalars import as_count, as_real, check_scalars
from flmq.common.tensor_names import tensor_called
from flmq.common.typing import (
    Code,
    Config,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Metrics,
    NDArrays,
    Parameters,
    Properties,
    Status,
)
from flmq.wire import parameters_to_send

__all__ = ["NumPyClient"]


class NumPyClient:
    """Base class of clients that use numpy. Override what the client can do.

    A method that is not overridden answers with its ``*_NOT_IMPLEMENTED`` code.
    """

    def get_properties(self, config: Config) -> Properties:
        """Return this client's properties; ``config`` may say which are wanted."""
        return {}

    def get_parameters(self, config: Config) -> NDArrays:
        """Return this client's own model parameters; ``config`` may say which are wanted."""
        return []

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        """Train ``parameters`` on the client's own data.

        Args:
            parameters: the global model's tensors, in its order and dtypes. They are the
                client's own copies: training in place is fine.
            config: settings from the strategy, such as the number of epochs.

        Returns:
            The trained tensors (same count, shapes and dtypes, all values finite), the number of
            examples they were trained on (at least 1: their weight in the mean), and metrics:
            numbers of any library (a metric that is no scalar is left out, and named in the log).
        """
        return [], 0, {}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        """Evaluate ``parameters`` on the client's own data.

        Args:
            parameters: the global model's tensors; the client's own copies.
            config: settings from the strategy, such as the number of batches.

        Returns:
            The loss (finite), the number of examples it was measured on (at least 1: its weight
            in the mean), and metrics.
        """
        return 0.0, 0, {}

    def to_client(self) -> Client:
        """Wrap this object in a `Client`."""
        return _NumPyAdapter(self)


class _NumPyAdapter(Client):
    """Convert between bytes and arrays; methods that are not overridden stay unimplemented."""

    def __init__(self, numpy_client: NumPyClient) -> None:
        self.numpy_client = numpy_client

    def get_properties(self, ins: GetPropertiesIns) -> GetPropertiesRes:
        if not self._overrides("get_properties"):
            return super().get_properties(ins)
        properties = self.numpy_client.get_properties(ins.config)
        what = f"the properties that {self._name()}.get_properties returned"
        return GetPropertiesRes(_success(), check_scalars(properties, what))

    def get_parameters(self, ins: GetParametersIns) -> GetParametersRes:
        if not self._overrides("get_parameters"):
            return super().get_parameters(ins)
        ndarrays = self.numpy_client.get_parameters(ins.config)
        if not isinstance(ndarrays, list | tuple):
            raise self._wrong("get_parameters", ndarrays)
        return GetParametersRes(_success(), self._to_parameters("get_parameters", ndarrays))

    def fit(self, ins: FitIns) -> FitRes:
        if not self._overrides("fit"):
            return super().fit(ins)
        returned: Any = self.numpy_client.fit(parameters_to_ndarrays(ins.parameters), ins.config)
        match returned:
            # Flower's users return lists of arrays; a tuple of arrays means the same.
            case (list() | tuple() as ndarrays, examples, metrics) if (
                num_examples := as_count(examples)
            ) is not None:
                parameters = self._to_parameters("fit", ndarrays, ins.parameters.names)
                return FitRes(_success(), parameters, num_examples, metrics)
        raise self._wrong("fit", returned)

    def evaluate(self, ins: EvaluateIns) -> EvaluateRes:
        if not self._overrides("evaluate"):
            return super().evaluate(ins)
        ndarrays = parameters_to_ndarrays(ins.parameters)
        returned: Any = self.numpy_client.evaluate(ndarrays, ins.config)
        match returned:
            case (measured, examples, metrics) if (loss := as_real(measured)) is not None and (
                num_examples := as_count(examples)
            ) is not None:
                return EvaluateRes(_success(), loss, num_examples, metrics)
        raise self._wrong("evaluate", returned)

    def _overrides(self, method: str) -> bool:
        return getattr(type(self.numpy_client), method) is not getattr(NumPyClient, method)

    def _to_parameters(
        self, method: str, ndarrays: list[Any] | tuple[Any, ...], names: tuple[str, ...] = ()
    ) -> Parameters:
        """Serialize, after checking that each element is an array: no guessing at tensors.

        ``names``, the model's, are for errors alone: the server knows them.
        """
        called = names if len(names) == len(ndarrays) else ()
        for index, element in enumerate(ndarrays):
            if not isinstance(element, np.ndarray | np.generic):
                raise InvalidReturnValue(
                    f"{self._name()}.{method} returned a {_type_name(element)} as "
                    f"{tensor_called(index, called)}, not a numpy array: convert it, for instance "
                    "with numpy.asarray(x), or with x.detach().cpu().numpy() from PyTorch"
                )
        return parameters_to_send(list(ndarrays), called=called)

    def _wrong(self, method: str, returned: object) -> InvalidReturnValue:
        signature, example = _SIGNATURES[method]
        return InvalidReturnValue(
            f"{self._name()}.{method} returned {_outline(returned)}.\n"
            f"It should return\n\n    {signature}\n\nExample:\n\n    return {example}\n"
        )

    def _name(self) -> str:
        return type(self.numpy_client).__name__


_SIGNATURES = {
    "get_parameters": ("list[numpy.ndarray]", "model.get_weights()"),
    "fit": (
        "tuple[list[numpy.ndarray], int, dict[str, Scalar]]  # tensors, examples, metrics",
        'model.get_weights(), 10, {"accuracy": 0.95}',
    ),
    "evaluate": (
        "tuple[float, int, dict[str, Scalar]]  # loss, examples, metrics",
        '0.5, 10, {"accuracy": 0.95}',
    ),
}
"""What each method returns, with an example in code."""


def _outline(returned: object) -> str:
    """Return the types of what was returned, as written in code."""
    if isinstance(returned, tuple):
        return f"({', '.join(_type_name(element) for element in returned)})"
    return _type_name(returned)


def _type_name(value: object) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _success() -> Status:
    return Status(Code.OK, "Success")
