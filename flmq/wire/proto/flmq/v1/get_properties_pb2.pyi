from flmq.wire.proto.flmq.v1 import scalar_pb2 as _scalar_pb2
from flmq.wire.proto.flmq.v1 import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetPropertiesIns(_message.Message):
    __slots__ = ("config",)
    class ConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _scalar_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_scalar_pb2.Scalar, _Mapping]] = ...) -> None: ...
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: _containers.MessageMap[str, _scalar_pb2.Scalar]
    def __init__(self, config: _Optional[_Mapping[str, _scalar_pb2.Scalar]] = ...) -> None: ...

class GetPropertiesRes(_message.Message):
    __slots__ = ("status", "properties")
    class PropertiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _scalar_pb2.Scalar
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_scalar_pb2.Scalar, _Mapping]] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    status: _status_pb2.Status
    properties: _containers.MessageMap[str, _scalar_pb2.Scalar]
    def __init__(self, status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., properties: _Optional[_Mapping[str, _scalar_pb2.Scalar]] = ...) -> None: ...
