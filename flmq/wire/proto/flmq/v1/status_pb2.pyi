from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODE_UNSPECIFIED: _ClassVar[Code]
    CODE_OK: _ClassVar[Code]
    CODE_GET_PROPERTIES_NOT_IMPLEMENTED: _ClassVar[Code]
    CODE_GET_PARAMETERS_NOT_IMPLEMENTED: _ClassVar[Code]
    CODE_FIT_NOT_IMPLEMENTED: _ClassVar[Code]
    CODE_EVALUATE_NOT_IMPLEMENTED: _ClassVar[Code]
CODE_UNSPECIFIED: Code
CODE_OK: Code
CODE_GET_PROPERTIES_NOT_IMPLEMENTED: Code
CODE_GET_PARAMETERS_NOT_IMPLEMENTED: Code
CODE_FIT_NOT_IMPLEMENTED: Code
CODE_EVALUATE_NOT_IMPLEMENTED: Code

class Status(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: Code
    message: str
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., message: _Optional[str] = ...) -> None: ...
