"""A codec for dataclasses of scalars, dicts of scalars, parameters and statuses, by field types.

A value from a peer must have the type that the dataclass declares, or the message is malformed.
Undeclared fields are ignored, and fields with a default may be missing: a program's next version
may add some.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from flmq.common.errors import InvalidReturnValue, MalformedMessage, UsageError
from flmq.common.typing import Parameters, Status
from flmq.wire.budget import OverBudget, check_budget
from flmq.wire.proto.flmq.v1 import fields_pb2 as pb
from flmq.wire.serde.contract import (
    parameters_from_proto,
    parameters_to_proto,
    status_from_proto,
    status_to_proto,
)
from flmq.wire.serde.members import PayloadCodec
from flmq.wire.serde.values import (
    real,
    scalar_from_proto,
    scalar_to_proto,
    scalars_from_proto,
    scalars_to_proto,
)

__all__ = ["UnsuitableField", "dataclass_codec"]

_SCALARS = (bool, int, float, str, bytes)


class UnsuitableField(UsageError):
    """A dataclass cannot be sent without a codec of its own."""


@dataclass(frozen=True, slots=True)
class _Spec:
    """What a field may hold."""

    name: str
    member: str
    """The member of the oneof that holds it."""
    scalars: frozenset[type]
    """The accepted types of a scalar."""
    optional: bool
    """Whether it may be None, which is sent as an absent field."""
    defaulted: bool
    """Whether it may be missing."""


def dataclass_codec(of: type) -> PayloadCodec:
    """Return the codec of a dataclass, derived from the types of its fields.

    Raises:
        UnsuitableField: it is not a dataclass, or a field's type cannot be sent.
    """
    if not dataclasses.is_dataclass(of):
        raise UnsuitableField(f"{of.__name__} is no dataclass: make it one, or give its codec")
    try:
        hints = get_type_hints(of)
    except Exception as error:
        raise UnsuitableField(
            f"the types of {of.__name__}'s fields cannot be read ({error}): define it where the "
            "names of its types are known, or give its codec"
        ) from error
    specs = [
        _spec(of.__name__, field, hints[field.name])
        for field in dataclasses.fields(of)
        if field.init
    ]
    return PayloadCodec(partial(_encode, of, specs), partial(_decode, of, specs))


def _spec(owner: str, field: dataclasses.Field[Any], hint: Any) -> _Spec:
    options = set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}
    optional = NoneType in options
    options.discard(NoneType)
    member, scalars = "", frozenset[type]()
    if options and options <= set(_SCALARS):
        member, scalars = "scalar", frozenset(options)
    elif options == {Parameters}:
        member = "parameters"
    elif options == {Status}:
        member = "status"
    elif len(options) == 1 and _is_dict_of_scalars(next(iter(options))):
        member = "scalars"
    if not member:
        raise UnsuitableField(
            f"{owner}.{field.name} is a {hint}: allowed are bool, int, float, str, bytes, dicts of "
            "them (Config), Parameters and Status, each or None; give arrays as Parameters, or the "
            "type its codec"
        )
    missing = dataclasses.MISSING
    defaulted = field.default is not missing or field.default_factory is not missing
    return _Spec(field.name, member, scalars, optional, defaulted)


def _is_dict_of_scalars(hint: Any) -> bool:
    if get_origin(hint) is not dict:
        return False
    key, value = get_args(hint)
    values = get_args(value) if get_origin(value) in (Union, UnionType) else (value,)
    return key is str and set(values) == set(_SCALARS)


def _encode(of: type, specs: list[_Spec], value: object) -> bytes:
    if not isinstance(value, of):
        raise InvalidReturnValue(f"a {type(value).__name__} is no {of.__name__}")
    proto = pb.Fields()
    for spec in specs:
        held = getattr(value, spec.name)
        if held is not None or not spec.optional:
            _write(spec, held, proto.fields[spec.name], f"{of.__name__}.{spec.name}")
    payload = proto.SerializeToString(deterministic=True)
    try:
        check_budget(payload, pb.Fields)
    except OverBudget as error:
        raise InvalidReturnValue(
            f"this {of.__name__} cannot be sent, {error}: give arrays as Parameters"
        ) from error
    return payload


def _write(spec: _Spec, value: Any, proto: pb.Field, where: str) -> None:
    match spec.member:
        case "scalar" if spec.scalars == {float}:
            proto.scalar.float_value = real(value, where)
        case "scalar":
            scalar_to_proto(value, proto.scalar, where)
            if type(scalar_from_proto(proto.scalar, where)) not in spec.scalars:
                raise InvalidReturnValue(f"{where} is a {_type(value)}: it must be {_named(spec)}")
        case "scalars":
            proto.scalars.SetInParent()
            scalars_to_proto(value, proto.scalars.values, where)
        case "parameters":
            parameters_to_proto(value, proto.parameters, where)
        case _:
            status_to_proto(value, proto.status, where)


def _decode(of: type, specs: list[_Spec], payload: bytes) -> Any:
    check_budget(payload, pb.Fields)
    found = pb.Fields.FromString(payload).fields
    values: dict[str, Any] = {}
    for spec in specs:
        if spec.name in found:
            values[spec.name] = _read(spec, found[spec.name], f"{of.__name__}.{spec.name}")
        elif spec.optional:
            values[spec.name] = None
        elif not spec.defaulted:
            raise MalformedMessage(f"{of.__name__} lacks its {spec.name}")
    return of(**values)


def _read(spec: _Spec, proto: pb.Field, where: str) -> Any:
    member = proto.WhichOneof("kind")
    if member != spec.member:
        raise MalformedMessage(f"{where} holds {member or 'nothing'}: it must be {_named(spec)}")
    match member:
        case "scalar":
            value = scalar_from_proto(proto.scalar, where)
            if type(value) not in spec.scalars:
                raise MalformedMessage(f"{where} is a {_type(value)}: it must be {_named(spec)}")
            return value
        case "scalars":
            return scalars_from_proto(proto.scalars.values)
        case "parameters":
            return parameters_from_proto(proto)
        case _:
            return status_from_proto(proto.status)


def _named(spec: _Spec) -> str:
    """Describe what a field must hold."""
    if spec.member != "scalar":
        return spec.member
    return " or ".join(of.__name__ for of in _SCALARS if of in spec.scalars)


def _type(value: object) -> str:
    return "None" if value is None else type(value).__name__
