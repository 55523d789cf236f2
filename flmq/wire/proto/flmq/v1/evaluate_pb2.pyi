from flmq.wire.proto.flmq.v1 import parameters_pb2 as _parameters_pb2
from flmq.wire.proto.flmq.v1 import scalar_pb2 as _scalar_pb2
from flmq.wire.proto.flmq.v1 import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EvaluateIns(_message.Message):
    __slots__ = ("parameters", "config")
    class ConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _scalar_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_scalar_pb2.Scalar, _Mapping]] = ...) -> None: ...
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    parameters: _parameters_pb2.Parameters
    config: _containers.MessageMap[str, _scalar_pb2.Scalar]
    def __init__(self, parameters: _Optional[_Union[_parameters_pb2.Parameters, _Mapping]] = ..., config: _Optional[_Mapping[str, _scalar_pb2.Scalar]] = ...) -> None: ...

class EvaluateRes(_message.Message):
    __slots__ = ("status", "loss", "num_examples", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _scalar_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_scalar_pb2.Scalar, _Mapping]] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    NUM_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    loss: float
    num_examples: int
    metrics: _containers.MessageMap[str, _scalar_pb2.Scalar]
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., loss: _Optional[float] = ..., num_examples: _Optional[int] = ..., metrics: _Optional[_Mapping[str, _scalar_pb2.Scalar]] = ...) -> None: ...
