from flmq.wire.proto.flmq.v1 import parameters_pb2 as _parameters_pb2
from flmq.wire.proto.flmq.v1 import scalar_pb2 as _scalar_pb2
from flmq.wire.proto.flmq.v1 import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Fields(_message.Message):
    __slots__ = ("fields",)
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Field
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Field, _Mapping]] = ...) -> None: ...
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.MessageMap[str, Field]
    def __init__(self, fields: _Optional[_Mapping[str, Field]] = ...) -> None: ...

class Field(_message.Message):
    __slots__ = ("scalar", "scalars", "parameters", "status")
    SCALAR_FIELD_NUMBER: _ClassVar[int]
    SCALARS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    scalar: _scalar_pb2.Scalar
    scalars: Scalars
    parameters: _parameters_pb2.Parameters
    status: _status_pb2.Status
    def __init__(self, scalar: _Optional[_Union[_scalar_pb2.Scalar, _Mapping]] = ..., scalars: _Optional[_Union[Scalars, _Mapping]] = ..., parameters: _Optional[_Union[_parameters_pb2.Parameters, _Mapping]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class Scalars(_message.Message):
    __slots__ = ("values",)
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _scalar_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_scalar_pb2.Scalar, _Mapping]] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.MessageMap[str, _scalar_pb2.Scalar]
    def __init__(self, values: _Optional[_Mapping[str, _scalar_pb2.Scalar]] = ...) -> None: ...
