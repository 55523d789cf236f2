"""The types of the contract: what server and client exchange, and the names users give them.

Field names and their order are part of the contract with Flower's users, who construct these
positionally and edit them in place (``ins.config["lr"] = 0.1`` in a ``configure_fit``): that is why
the dataclasses here are mutable, unlike all others of flmq.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from flmq.common.tensor_names import check_names

__all__ = [
    "Code",
    "Config",
    "DisconnectRes",
    "EvaluateIns",
    "EvaluateRes",
    "FitIns",
    "FitRes",
    "GetParametersIns",
    "GetParametersRes",
    "GetPropertiesIns",
    "GetPropertiesRes",
    "Metrics",
    "MetricsAggregationFn",
    "NDArray",
    "NDArrayFloat",
    "NDArrayInt",
    "NDArrays",
    "Parameters",
    "Properties",
    "ReconnectIns",
    "Scalar",
    "Status",
    "Value",
]

NDArray = npt.NDArray[Any]
NDArrayInt = npt.NDArray[np.int_]
NDArrayFloat = npt.NDArray[np.float64]
NDArrays = list[NDArray]
"""A model's tensors in a fixed order."""

Scalar = bool | bytes | float | int | str
"""One value of a config or of metrics. An int must fit signed 64 bits; a float is a double."""
Value = (
    bool
    | bytes
    | float
    | int
    | str
    | list[bool]
    | list[bytes]
    | list[float]
    | list[int]
    | list[str]
)
Config = dict[str, Scalar]
Metrics = dict[str, Scalar]
Properties = dict[str, Scalar]
MetricsAggregationFn = Callable[[list[tuple[int, Metrics]]], Metrics]
"""Aggregate ``(num_examples, metrics)`` of each client, in client-id order, into one dict."""


class Code(Enum):
    """How a client answered."""

    OK = 0
    GET_PROPERTIES_NOT_IMPLEMENTED = 1
    GET_PARAMETERS_NOT_IMPLEMENTED = 2
    FIT_NOT_IMPLEMENTED = 3
    EVALUATE_NOT_IMPLEMENTED = 4


@dataclass
class Status:
    """How a client answered, with a message for people."""

    code: Code
    message: str


@dataclass
class Parameters:
    """A model as bytes: with type ``"numpy.ndarray"`` each tensor is one ``.npy`` byte string.

    ``flmq.common.ndarrays_to_parameters`` and ``parameters_to_ndarrays`` convert. Parameters are
    equal if their bytes, type and names are.

    Raises:
        InvalidTensorNames: names are repeated, missing, or no printable text.
    """

    tensors: list[bytes]
    tensor_type: str
    names: tuple[str, ...] = ()
    """The name of each tensor, or none at all: tensors are then known by their place."""

    def __post_init__(self) -> None:
        """Check the names."""
        if self.names:
            self.names = check_names(self.names, len(self.tensors))


@dataclass
class FitIns:
    """Ask a client to train: from these parameters, as ``config`` says."""

    parameters: Parameters
    config: Config


@dataclass
class FitRes:
    """A client's trained parameters and on how many examples they were trained."""

    status: Status
    parameters: Parameters
    num_examples: int
    metrics: Metrics


@dataclass
class EvaluateIns:
    """Ask a client to evaluate these parameters on its own data."""

    parameters: Parameters
    config: Config


@dataclass
class EvaluateRes:
    """A client's loss on its own data and on how many examples it was measured."""

    status: Status
    loss: float
    num_examples: int
    metrics: Metrics


@dataclass
class GetParametersIns:
    """Ask a client for its parameters."""

    config: Config


@dataclass
class GetParametersRes:
    """A client's own parameters."""

    status: Status
    parameters: Parameters


@dataclass
class GetPropertiesIns:
    """Ask a client for its properties."""

    config: Config


@dataclass
class GetPropertiesRes:
    """A client's own properties."""

    status: Status
    properties: Properties


@dataclass
class ReconnectIns:
    """Ask a client to leave: for this many seconds, or for good (None)."""

    seconds: int | None


@dataclass
class DisconnectRes:
    """A client's answer to a `ReconnectIns`."""

    reason: str
