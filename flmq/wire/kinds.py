"""Kinds of messages: what a server may ask of a client, and what the client answers.

A kind is a name with its codec, its check and its call on the client. flmq's own five are in
`flmq.wire.serde.builtin`; a program adds others with `register`, and no layer between server and
client needs to know of them. Both programs must register them: see `docs/messages.md`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from flmq.common.errors import UsageError
from flmq.common.failure_text import named_error
from flmq.common.phase import Phase
from flmq.common.typing import Metrics, Parameters, Status
from flmq.wire.serde.fields import dataclass_codec
from flmq.wire.serde.members import Codec, PayloadCodec

__all__ = [
    "InvalidKind",
    "Kind",
    "NotRegistered",
    "PayloadCodec",
    "UnknownKind",
    "check_reply",
    "find_kind",
    "kind_named",
    "kind_of",
    "register",
    "type_problem",
]

_RESERVED = {
    "metrics": Metrics,
    "num_examples": int,
    "parameters": Parameters,
    "status": Status,
}
"""Fields that flmq reads in any message, and their types."""


class InvalidKind(UsageError):
    """A kind of message cannot be registered as declared."""


class NotRegistered(UsageError):
    """A message cannot be sent, as its kind is not registered."""

    def __init__(self, what: str) -> None:
        """Name what has no registered kind."""
        super().__init__(f"{what}: register it with flmq.wire.kinds.register before it is used")


@dataclass(frozen=True)
class Kind:
    """One kind of message.

    ``ins`` and ``res`` are dataclasses of scalars, dicts of scalars, `Parameters` and `Status`, or
    any types that have a codec. A field ``parameters`` is sent separately if it is large, as a
    model is. Fields named ``status``, ``parameters``, ``num_examples`` and ``metrics`` mean what
    they mean in `FitRes`: a status that is not OK is a failure.
    """

    name: str
    """Lower-case letters, digits, ``_``, ``.`` and ``-``; 1 to 64 of them."""
    ins: type
    """Type of the request to the client; it belongs to no other kind."""
    res: type
    """Type of the client's answer."""
    call: str = ""
    """The `Client` or `NumPyClient` method from ``ins`` to ``res``; ``name`` if empty."""
    check: Callable[[Any, Any], str | None] | None = None
    """Returns why a ``res`` does not answer an ``ins``, or None; a server may replace it."""
    ins_codec: Codec | None = None
    """None for the codec of dataclasses."""
    res_codec: Codec | None = None
    """None for the codec of dataclasses."""
    phase: Phase = field(init=False)
    """The phase of its tasks."""

    def __post_init__(self) -> None:
        """Validate the kind, and set its defaults.

        Raises:
            InvalidKind: its name, its call or a type is not usable.
            UnsuitableField: a type needs a codec.
        """
        try:
            object.__setattr__(self, "phase", Phase(self.name))
        except ValueError as error:
            raise InvalidKind(str(error)) from error
        call = self.call or self.name
        if not call.isidentifier() or call.startswith("_"):
            raise InvalidKind(
                f"kind {self.name!r}: no client has a method {call!r}: name one with call=..."
            )
        object.__setattr__(self, "call", call)
        for side, codec in (("ins", self.ins_codec), ("res", self.res_codec)):
            of = getattr(self, side)
            _check_reserved(self.name, of)
            if codec is None:
                object.__setattr__(self, f"{side}_codec", dataclass_codec(of))


@dataclass(frozen=True, slots=True)
class UnknownKind:
    """Placeholder in a task or a reply whose kind is not registered here."""

    payload: bytes


_LOCK = threading.Lock()
_BY_NAME: dict[str, Kind] = {}
_BY_INS: dict[type, Kind] = {}


def register(kind: Kind) -> Kind:
    """Register ``kind`` in this process, and return it.

    If it is registered again with types of the same names, as when a notebook cell is run twice,
    the last one counts.

    Raises:
        InvalidKind: its name or its ``ins`` belongs to another kind.
    """
    with _LOCK:
        before = _BY_NAME.get(kind.name)
        if before is not None and not _is_same(before, kind):
            raise InvalidKind(
                f"there is a kind {kind.name!r} already, of {_full_name(before.ins)}: choose "
                "another name"
            )
        other = _BY_INS.get(kind.ins)
        if other is not None and other is not before:
            raise InvalidKind(
                f"kind {kind.name!r}: {kind.ins.__name__} is what kind {other.name!r} asks with: "
                "give each kind a type of its own"
            )
        if before is not None:
            del _BY_INS[before.ins]
        _BY_NAME[kind.name] = _BY_INS[kind.ins] = kind
    return kind


def kind_named(name: str) -> Kind:
    """Return the kind called ``name``.

    Raises:
        NotRegistered: there is none.
    """
    kind = _BY_NAME.get(name)
    if kind is None:
        raise NotRegistered(f"no kind of message is called {name!r}")
    return kind


def find_kind(phase: Phase) -> Kind | None:
    """Return the kind of a phase's tasks, or None if it is not registered here."""
    return _BY_NAME.get(phase.value)


def kind_of(ins: object) -> Kind:
    """Return the kind whose ``ins`` type is that of ``ins``.

    Raises:
        NotRegistered: there is none.
    """
    kind = _BY_INS.get(type(ins))
    if kind is None:
        raise NotRegistered(f"{type(ins).__name__} is of no kind of message")
    return kind


def type_problem(phase: Phase, res: object) -> str | None:
    """Return why ``res`` is not of the type that answers ``phase``, or None if it is."""
    kind = find_kind(phase)
    if kind is None or isinstance(res, UnknownKind):
        return (
            f"this server does not know messages of kind {phase.value}: register it in the "
            "server's program"
        )
    if isinstance(res, kind.res):
        return None
    return f"{kind.name} is answered by {kind.res.__name__}, not {type(res).__name__}"


def check_reply(ins: object, res: object) -> str | None:
    """Return why ``res`` does not answer ``ins`` by their kind's check, or None if it does."""
    kind = _BY_INS.get(type(ins))
    if kind is None or kind.check is None:
        return None
    try:
        return kind.check(ins, res)
    except Exception as error:
        return f"the check of kind {kind.name} raised {named_error(error)}"


def _check_reserved(name: str, of: type) -> None:
    try:
        hints = get_type_hints(of)
    except Exception:  # of a type that is not known there: none of ours
        hints = {}
    for read, wanted in _RESERVED.items():
        if hints.get(read, wanted) != wanted:
            raise InvalidKind(
                f"kind {name!r}: {of.__name__}.{read} is not of the type {wanted}, as which flmq "
                "reads what is called so: give it that type, or another name"
            )


def _is_same(one: Kind, other: Kind) -> bool:
    """Return whether both are one kind whose types were defined twice."""
    return (_full_name(one.ins), _full_name(one.res)) == (
        _full_name(other.ins),
        _full_name(other.res),
    )


def _full_name(of: type) -> str:
    return f"{of.__module__}.{of.__qualname__}"
