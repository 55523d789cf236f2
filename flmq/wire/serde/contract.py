"""Convert the contract's ``*Ins`` and ``*Res`` between dataclasses and protobuf."""

from __future__ import annotations

from flmq.common.errors import InvalidReturnValue, InvalidTensorNames, MalformedMessage
from flmq.common.tensor_names import names_problem
from flmq.common.typing import (
    Code,
    DisconnectRes,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Parameters,
    ReconnectIns,
    Status,
)
from flmq.wire.proto.flmq.v1 import (
    envelopes_pb2,
    evaluate_pb2,
    fields_pb2,
    fit_pb2,
    parameters_pb2,
    reconnect_pb2,
    status_pb2,
)
from flmq.wire.proto.flmq.v1 import get_parameters_pb2 as get_parameters
from flmq.wire.proto.flmq.v1 import get_properties_pb2 as get_properties
from flmq.wire.serde.values import (
    expect,
    integer,
    real,
    scalars_from_proto,
    scalars_to_proto,
    text,
)

_CODES = {
    Code.OK: status_pb2.CODE_OK,
    Code.GET_PROPERTIES_NOT_IMPLEMENTED: status_pb2.CODE_GET_PROPERTIES_NOT_IMPLEMENTED,
    Code.GET_PARAMETERS_NOT_IMPLEMENTED: status_pb2.CODE_GET_PARAMETERS_NOT_IMPLEMENTED,
    Code.FIT_NOT_IMPLEMENTED: status_pb2.CODE_FIT_NOT_IMPLEMENTED,
    Code.EVALUATE_NOT_IMPLEMENTED: status_pb2.CODE_EVALUATE_NOT_IMPLEMENTED,
}
_CODES_BACK = {number: code for code, number in _CODES.items()}


def status_to_proto(status: object, proto: status_pb2.Status, where: str) -> None:
    """Write a client's status; ``where`` names it in errors."""
    status = expect(status, Status, where)
    proto.code = _CODES[expect(status.code, Code, f"{where}.code")]
    proto.message = text(status.message, f"{where}.message")


def status_from_proto(proto: status_pb2.Status) -> Status:
    """Read a client's status; one that was never set is not OK."""
    code = _CODES_BACK.get(proto.code)
    if code is None:
        raise MalformedMessage(f"status code {int(proto.code)} is none of those known here")
    return Status(code=code, message=proto.message)


def parameters_to_proto(parameters: object, proto: parameters_pb2.Parameters, where: str) -> None:
    """Write parameters; ``where`` names them in errors."""
    parameters = expect(parameters, Parameters, where)
    # Set even if empty: absent parameters are malformed.
    proto.SetInParent()
    proto.tensor_type = text(parameters.tensor_type, f"{where}.tensor_type")
    for index, tensor in enumerate(expect(parameters.tensors, list, f"{where}.tensors")):
        if isinstance(tensor, bytearray | memoryview):
            tensor = bytes(tensor)
        proto.tensors.append(expect(tensor, bytes, f"{where}.tensors[{index}]"))
    if (problem := names_problem(parameters.names, len(parameters.tensors))) is not None:
        raise InvalidReturnValue(f"{where} has {problem}")
    proto.names.extend(parameters.names)


def parameters_from_proto(
    owner: fit_pb2.FitIns
    | fit_pb2.FitRes
    | evaluate_pb2.EvaluateIns
    | get_parameters.GetParametersRes
    | fields_pb2.Field
    | envelopes_pb2.AggregateOrder
    | envelopes_pb2.PartialSum,
) -> Parameters:
    """Read the parameters of ``owner``, which must have them."""
    if not owner.HasField("parameters"):
        raise MalformedMessage(f"{owner.DESCRIPTOR.name} has no parameters")
    proto = owner.parameters
    try:
        return Parameters(list(proto.tensors), proto.tensor_type, tuple(proto.names))
    except InvalidTensorNames as error:
        raise MalformedMessage(f"parameters with {error}") from error


def fit_ins_to_proto(ins: FitIns, proto: fit_pb2.FitIns) -> None:
    """Write a request to train."""
    parameters_to_proto(ins.parameters, proto.parameters, "FitIns.parameters")
    scalars_to_proto(ins.config, proto.config, "FitIns.config")


def fit_ins_from_proto(proto: fit_pb2.FitIns) -> FitIns:
    """Read a request to train."""
    return FitIns(parameters_from_proto(proto), scalars_from_proto(proto.config))


def fit_res_to_proto(res: FitRes, proto: fit_pb2.FitRes) -> None:
    """Write a client's training result."""
    status_to_proto(res.status, proto.status, "FitRes.status")
    parameters_to_proto(res.parameters, proto.parameters, "FitRes.parameters")
    proto.num_examples = integer(res.num_examples, "FitRes.num_examples")
    scalars_to_proto(res.metrics, proto.metrics, "FitRes.metrics")


def fit_res_from_proto(proto: fit_pb2.FitRes) -> FitRes:
    """Read a client's training result."""
    return FitRes(
        status_from_proto(proto.status),
        parameters_from_proto(proto),
        proto.num_examples,
        scalars_from_proto(proto.metrics),
    )


def evaluate_ins_to_proto(ins: EvaluateIns, proto: evaluate_pb2.EvaluateIns) -> None:
    """Write a request to evaluate."""
    parameters_to_proto(ins.parameters, proto.parameters, "EvaluateIns.parameters")
    scalars_to_proto(ins.config, proto.config, "EvaluateIns.config")


def evaluate_ins_from_proto(proto: evaluate_pb2.EvaluateIns) -> EvaluateIns:
    """Read a request to evaluate."""
    return EvaluateIns(parameters_from_proto(proto), scalars_from_proto(proto.config))


def evaluate_res_to_proto(res: EvaluateRes, proto: evaluate_pb2.EvaluateRes) -> None:
    """Write a client's evaluation."""
    status_to_proto(res.status, proto.status, "EvaluateRes.status")
    proto.loss = real(res.loss, "EvaluateRes.loss")
    proto.num_examples = integer(res.num_examples, "EvaluateRes.num_examples")
    scalars_to_proto(res.metrics, proto.metrics, "EvaluateRes.metrics")


def evaluate_res_from_proto(proto: evaluate_pb2.EvaluateRes) -> EvaluateRes:
    """Read a client's evaluation."""
    return EvaluateRes(
        status_from_proto(proto.status),
        proto.loss,
        proto.num_examples,
        scalars_from_proto(proto.metrics),
    )


def get_parameters_ins_to_proto(
    ins: GetParametersIns, proto: get_parameters.GetParametersIns
) -> None:
    """Write a request for a client's parameters."""
    scalars_to_proto(ins.config, proto.config, "GetParametersIns.config")


def get_parameters_ins_from_proto(proto: get_parameters.GetParametersIns) -> GetParametersIns:
    """Read a request for a client's parameters."""
    return GetParametersIns(scalars_from_proto(proto.config))


def get_parameters_res_to_proto(
    res: GetParametersRes, proto: get_parameters.GetParametersRes
) -> None:
    """Write a client's parameters."""
    status_to_proto(res.status, proto.status, "GetParametersRes.status")
    parameters_to_proto(res.parameters, proto.parameters, "GetParametersRes.parameters")


def get_parameters_res_from_proto(proto: get_parameters.GetParametersRes) -> GetParametersRes:
    """Read a client's parameters."""
    return GetParametersRes(status_from_proto(proto.status), parameters_from_proto(proto))


def get_properties_ins_to_proto(
    ins: GetPropertiesIns, proto: get_properties.GetPropertiesIns
) -> None:
    """Write a request for a client's properties."""
    scalars_to_proto(ins.config, proto.config, "GetPropertiesIns.config")


def get_properties_ins_from_proto(proto: get_properties.GetPropertiesIns) -> GetPropertiesIns:
    """Read a request for a client's properties."""
    return GetPropertiesIns(scalars_from_proto(proto.config))


def get_properties_res_to_proto(
    res: GetPropertiesRes, proto: get_properties.GetPropertiesRes
) -> None:
    """Write a client's properties."""
    status_to_proto(res.status, proto.status, "GetPropertiesRes.status")
    scalars_to_proto(res.properties, proto.properties, "GetPropertiesRes.properties")


def get_properties_res_from_proto(proto: get_properties.GetPropertiesRes) -> GetPropertiesRes:
    """Read a client's properties."""
    return GetPropertiesRes(status_from_proto(proto.status), scalars_from_proto(proto.properties))


def reconnect_ins_to_proto(ins: ReconnectIns, proto: reconnect_pb2.ReconnectIns) -> None:
    """Write a request to leave; without seconds, for good."""
    if ins.seconds is not None:
        proto.seconds = integer(ins.seconds, "ReconnectIns.seconds")


def reconnect_ins_from_proto(proto: reconnect_pb2.ReconnectIns) -> ReconnectIns:
    """Read a request to leave."""
    return ReconnectIns(proto.seconds if proto.HasField("seconds") else None)


def disconnect_res_to_proto(res: DisconnectRes, proto: reconnect_pb2.DisconnectRes) -> None:
    """Write a client's answer to a request to leave."""
    proto.reason = text(res.reason, "DisconnectRes.reason")


def disconnect_res_from_proto(proto: reconnect_pb2.DisconnectRes) -> DisconnectRes:
    """Read a client's answer to a request to leave."""
    return DisconnectRes(proto.reason)
