"""How a value is stored in the oneof of a task or a reply: as its own message, or as bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flmq.common.errors import InvalidReturnValue, MalformedMessage
from flmq.common.failure_text import named_error

__all__ = ["PAYLOAD", "Codec", "PayloadCodec", "SchemaField"]

PAYLOAD = "payload"
"""The oneof member for all types without a message in the schema."""


@dataclass(frozen=True, slots=True)
class PayloadCodec:
    """Encode a type to bytes, and decode it."""

    encode: Callable[[Any], bytes]
    """Equal values must have equal bytes. Where ``parameters`` travel apart, it is given a copy
    with `Parameters` of no tensors."""
    decode: Callable[[bytes], Any]
    """The bytes may be anybody's: whatever it raises makes the message malformed."""

    def write(self, value: object, owner: Any) -> None:
        """Store ``value`` in ``owner``, a task or a reply.

        Raises:
            InvalidReturnValue: `encode` cannot encode it.
        """
        name = type(value).__name__
        try:
            payload = self.encode(value)
        except InvalidReturnValue:
            raise
        except Exception as error:
            raise InvalidReturnValue(
                f"the codec of {name} cannot write it ({named_error(error)})"
            ) from error
        if not isinstance(payload, bytes):
            raise InvalidReturnValue(
                f"the codec of {name} made a {type(payload).__name__} of it: it must be bytes"
            )
        owner.payload = payload

    def read(self, owner: Any) -> Any:
        """Return the value in ``owner``, a task or a reply.

        Raises:
            MalformedMessage: `decode` cannot decode it.
        """
        try:
            return self.decode(owner.payload)
        except MalformedMessage:
            raise
        except Exception as error:
            raise MalformedMessage(f"the payload cannot be read ({named_error(error)})") from error


@dataclass(frozen=True, slots=True)
class SchemaField:
    """Write and read a type as its own message in ``schemas/``."""

    field: str
    """The member of the oneof."""
    to_proto: Callable[[Any, Any], None]
    from_proto: Callable[[Any], Any]

    def write(self, value: object, owner: Any) -> None:
        """Store ``value`` in ``owner``, which has the field."""
        message = getattr(owner, self.field)
        # Set even if all its fields have their defaults.
        message.SetInParent()
        self.to_proto(value, message)

    def read(self, owner: Any) -> Any:
        """Return the value in ``owner``."""
        return self.from_proto(getattr(owner, self.field))


Codec = PayloadCodec | SchemaField
