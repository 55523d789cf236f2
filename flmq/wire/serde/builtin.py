"""flmq's own five kinds of messages, which have their own messages in the schema."""

from __future__ import annotations

from flmq.common.typing import (
    DisconnectRes,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    ReconnectIns,
)
from flmq.wire.kinds import Kind, register
from flmq.wire.proto.flmq.v1 import envelopes_pb2 as pb
from flmq.wire.serde import contract
from flmq.wire.serde.members import SchemaField

__all__ = ["KINDS"]

_FIT = Kind(
    "fit",
    FitIns,
    FitRes,
    ins_codec=SchemaField("fit", contract.fit_ins_to_proto, contract.fit_ins_from_proto),
    res_codec=SchemaField("fit", contract.fit_res_to_proto, contract.fit_res_from_proto),
)
_EVALUATE = Kind(
    "evaluate",
    EvaluateIns,
    EvaluateRes,
    ins_codec=SchemaField(
        "evaluate", contract.evaluate_ins_to_proto, contract.evaluate_ins_from_proto
    ),
    res_codec=SchemaField(
        "evaluate", contract.evaluate_res_to_proto, contract.evaluate_res_from_proto
    ),
)
_GET_PARAMETERS = Kind(
    "get_parameters",
    GetParametersIns,
    GetParametersRes,
    ins_codec=SchemaField(
        "get_parameters",
        contract.get_parameters_ins_to_proto,
        contract.get_parameters_ins_from_proto,
    ),
    res_codec=SchemaField(
        "get_parameters",
        contract.get_parameters_res_to_proto,
        contract.get_parameters_res_from_proto,
    ),
)
_GET_PROPERTIES = Kind(
    "get_properties",
    GetPropertiesIns,
    GetPropertiesRes,
    ins_codec=SchemaField(
        "get_properties",
        contract.get_properties_ins_to_proto,
        contract.get_properties_ins_from_proto,
    ),
    res_codec=SchemaField(
        "get_properties",
        contract.get_properties_res_to_proto,
        contract.get_properties_res_from_proto,
    ),
)
_RECONNECT = Kind(
    "reconnect",
    ReconnectIns,
    DisconnectRes,
    ins_codec=SchemaField(
        "reconnect", contract.reconnect_ins_to_proto, contract.reconnect_ins_from_proto
    ),
    res_codec=SchemaField(
        "disconnect", contract.disconnect_res_to_proto, contract.disconnect_res_from_proto
    ),
)

KINDS = {
    pb.PHASE_FIT: register(_FIT),
    pb.PHASE_EVALUATE: register(_EVALUATE),
    pb.PHASE_GET_PARAMETERS: register(_GET_PARAMETERS),
    pb.PHASE_GET_PROPERTIES: register(_GET_PROPERTIES),
    pb.PHASE_RECONNECT: register(_RECONNECT),
}
"""By their numbers on the wire; other kinds are named there."""
