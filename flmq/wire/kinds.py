"""Kinds of messages: what a server may ask of a client, and what the client answers.

A kind is a name with its codec, its check and its call on the client. flmq's own five are in
`flmq.wire.serde.builtin`; a program adds others with `register`, and no layer between server and
client need know of them. Both programs must register them: `docs/messages.md` shows how.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from flmq.common.errors import UsageError
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
"""Fields that flmq reads of any message, and their type."""


class InvalidKind(UsageError):
    """A kind of message cannot be registered as it is."""


class NotRegistered(UsageError):
    """Nobody has registered the kind of a message that is to be sent."""

    def __init__(self, what: str) -> None:
        """Say of what there is no kind."""
        super().__init__(f"{what}: register it with flmq.wire.kinds.register before it is used")


@dataclass(frozen=True)
class Kind:
    """One kind of message.

    ``ins`` and ``res`` are dataclasses of scalars, dicts of scalars, `Parameters` and `Status`, or
    any types at all that have a codec. A field ``parameters`` travels apart where it is large, as a
    model does. Fields named ``status``, ``parameters``, ``num_examples`` and ``metrics`` mean what
    they mean in `FitRes`: a status that is not OK is a failure.
    """

    name: str
    """Lower-case letters, digits, ``_``, ``.`` and ``-``; 1 to 64 of them."""
    ins: type
    """What a client is asked with; of no other kind."""
    res: type
    """What a client answers."""
    call: str = ""
    """The method of `Client` or `NumPyClient` from an ``ins`` to a ``res``; empty: as ``name``."""
    check: Callable[[Any, Any], str | None] | None = None
    """Why a ``res`` does not answer an ``ins``, or None; where the server gives no other check."""
    ins_codec: Codec | None = None
    """None: the codec of dataclasses."""
    res_codec: Codec | None = None
    """None: the codec of dataclasses."""
    phase: Phase = field(init=False)
    """The phase of its tasks."""

    def __post_init__(self) -> None:
        """Check it, and fill in what is left out.

        Raises:
            InvalidPhaseName: the name is not usable.
            InvalidKind: something else is not.
        """
        object.__setattr__(self, "phase", Phase(self.name))
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
    """What stands in a task or a reply whose kind is not registered here."""

    payload: bytes


_LOCK = threading.Lock()
_BY_NAME: dict[str, Kind] = {}
_BY_INS: dict[type, Kind] = {}


def register(kind: Kind) -> Kind:
    """Make ``kind`` known to this process, and return it.

    Registered again with types of the same names, as where a cell of a notebook is run twice, the
    last one counts.

    Raises:
        InvalidKind: its name or its ``ins`` is another kind's.
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
    """The kind called ``name``.

    Raises:
        NotRegistered: there is none.
    """
    kind = _BY_NAME.get(name)
    if kind is None:
        raise NotRegistered(f"no kind of message is called {name!r}")
    return kind


def find_kind(phase: Phase) -> Kind | None:
    """The kind of a phase's tasks, or None if it is not registered here."""
    return _BY_NAME.get(phase.value)


def kind_of(ins: object) -> Kind:
    """The kind that asks with the type of ``ins``.

    Raises:
        NotRegistered: none does.
    """
    kind = _BY_INS.get(type(ins))
    if kind is None:
        raise NotRegistered(f"{type(ins).__name__} is of no kind of message")
    return kind


def type_problem(phase: Phase, res: object) -> str | None:
    """Why ``res`` is not of the type that answers a task of ``phase``, or None if it is."""
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
    """Why ``res`` does not answer ``ins`` by the check of their kind, or None if it does."""
    kind = _BY_INS.get(type(ins))
    if kind is None or kind.check is None:
        return None
    try:
        return kind.check(ins, res)
    except Exception as error:
        return f"the check of kind {kind.name} raised {type(error).__name__}: {error}"


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
    """Whether these are one kind whose types were made twice."""
    return (_full_name(one.ins), _full_name(one.res)) == (
        _full_name(other.ins),
        _full_name(other.res),
    )


def _full_name(of: type) -> str:
    return f"{of.__module__}.{of.__qualname__}"
