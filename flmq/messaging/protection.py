"""How a message's bytes are protected on their way: not at all, or signed and sealed.

`Sender` and `Inbox` have a `Protection` each. `PLAIN`, the default, encodes and decodes and costs
nothing. The two ends of a job that does not trust its broker have one each, made of
`flmq.messaging.sealed`: see `flmq.client.secure` and `flmq.server.secure`. What they take off a
message is gone before anybody else sees it: all that flmq checks of a message, it checks of what
was signed. Blobs need nothing here: the key of theirs is in their `BlobRef`, and `flmq.wire.blobs`
encrypts and decrypts their chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from flmq.e2e.errors import Protected
from flmq.e2e.names import SERVER
from flmq.transport import Delivery
from flmq.wire import Body, Sealed, encode

__all__ = ["PLAIN", "Encoded", "Opened", "Plain", "Protection"]

Encoded = bytes | bytearray | memoryview


class Opened(NamedTuple):
    """A message without its protection."""

    body: Body
    encoded: Encoded
    """Its envelope's bytes: what `flmq.wire.decode` made ``body`` of."""


class Protection(Protocol):
    """Protect what is sent, and open what comes. Thread-safe."""

    @property
    def chunk_overhead(self) -> int:
        """Bytes by which a blob's chunk may be longer on the wire than its plain bytes."""

    def protect(
        self, body: Body, *, recipient: str = "", message_id: str = "", correlation_id: str = ""
    ) -> bytes:
        """Return the bytes to send for ``body``, bound to the ids of the message that carries them.

        ``recipient``: the client that it is for, where the message itself does not say.

        Raises:
            NoManifest: it would be sealed to a server that was not heard yet.
            InvalidReturnValue: as `flmq.wire.encode`; likewise InvalidClientId, InvalidJobName,
                ValueError and TypeError.
        """

    def open(self, body: Body, delivery: Delivery) -> Opened:
        """Return the message in ``body``, which ``delivery`` brought, if it can be believed.

        Raises:
            Mismatch: this end and the sender's do not agree on keys; a person has to know.
            MalformedMessage: it was changed, or was made by, for or as something else (`Forged`).
        """


class Plain:
    """No protection: the broker and its users are trusted."""

    chunk_overhead = 0

    def __init__(self, no_keys: Callable[[Sealed], str] | None = None) -> None:
        """``no_keys`` says of a message that is signed or sealed what to do, to a person."""
        self._no_keys = no_keys or _no_keys

    def protect(
        self, body: Body, *, recipient: str = "", message_id: str = "", correlation_id: str = ""
    ) -> bytes:
        """Encode it."""
        return encode(body)

    def open(self, body: Body, delivery: Delivery) -> Opened:
        """Return it as it is.

        Raises:
            Protected: it is signed or sealed, for an end that has keys.
        """
        if isinstance(body, Sealed):
            subject = body.job if body.sender == SERVER else body.sender
            raise Protected(subject, self._no_keys(body))
        return Opened(body, delivery.message.body)


def _no_keys(sealed: Sealed) -> str:
    if sealed.sender == SERVER:
        return (
            f"job {sealed.job!r} is protected from end to end, and there are no keys here: start "
            "this client with --e2e, --key and --server-key (docs/e2e.md), and have its public key "
            "added to those that the job's server trusts"
        )
    return (
        f"client {sealed.sender!r} takes part only in jobs that are protected from end to end, and "
        "this one is not: start its server with --e2e, --keys and --trust (docs/e2e.md), or that "
        "client without --e2e"
    )


PLAIN = Plain()
"""No protection."""
