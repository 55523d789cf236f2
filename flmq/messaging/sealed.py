"""Sign and seal envelopes, and open them again: what both ends of a protected job have in common.

On the wire a protected message is an envelope with a `Sealed` in it, whose letter holds another
envelope's bytes. Which kinds are sealed as well as signed is fixed here, so that nobody can say of
a sealed message that it is a signed one.
"""

from __future__ import annotations

from flmq.e2e.errors import Forged
from flmq.e2e.letters import Heading, close_letter, open_letter
from flmq.e2e.names import SERVER
from flmq.e2e.primitives import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
    X25519PrivateKey,
    X25519PublicKey,
)
from flmq.messaging.protection import Opened
from flmq.transport import Delivery
from flmq.wire import Body, ModelRequest, Presence, Receipt, Reply, Sealed, Task, decode, encode

__all__ = ["is_sealed", "open_body", "seal_body"]

_SEALED = frozenset(kind.__name__ for kind in (Task, Reply, Receipt, ModelRequest))


def is_sealed(kind: str) -> bool:
    """Return whether messages of ``kind`` (a type's name) are sealed; others are signed alone."""
    return kind in _SEALED


def seal_body(
    body: Body,
    heading: Heading,
    signer: Ed25519PrivateKey,
    sealer: X25519PublicKey | None = None,
    manifest: bytes = b"",
) -> bytes:
    """Return the envelope to send: ``body`` signed, and sealed to ``sealer`` if its kind is.

    ``heading.kind`` is the name of the type of ``body``.

    Raises:
        InvalidReturnValue: as `flmq.wire.encode`, and what else that raises.
    """
    if (sealer is not None) is not is_sealed(heading.kind):
        raise TypeError(f"a {heading.kind} is sealed if and only if its kind is")
    letter = close_letter(heading, encode(body), signer, sealer)
    return encode(
        Sealed(
            heading.kind,
            heading.sender,
            heading.recipient,
            letter,
            heading.job,
            heading.run,
            manifest,
        )
    )


def open_body(
    sealed: Sealed,
    delivery: Delivery,
    verifier: Ed25519PublicKey,
    opener: X25519PrivateKey | None,
) -> Opened:
    """Return the message in ``sealed``, which the holder of ``verifier`` signed.

    ``opener`` is only used if its kind is sealed.

    Raises:
        Forged: it was changed, or was made by, for or as something else.
        MalformedMessage: its sender made a message that is none.
        UnsupportedVersion: it has another major version of the schema.
    """
    heading = Heading(
        sealed.kind,
        sealed.sender,
        sealed.recipient,
        sealed.job,
        sealed.run,
        delivery.message.message_id,
        delivery.message.correlation_id,
    )
    needed = is_sealed(sealed.kind)
    if needed and opener is None:
        raise Forged(f"{heading} is sealed, and nothing that is comes here")
    encoded = open_letter(heading, sealed.letter, verifier, opener if needed else None)
    body = decode(encoded)
    if problem := _other_names(sealed, body):
        raise Forged(f"{heading} {problem}")
    return Opened(body, encoded)


def _other_names(sealed: Sealed, body: Body) -> str | None:
    """Return what a message says otherwise than its heading; None: nothing."""
    if type(body).__name__ != sealed.kind:
        return f"is a {type(body).__name__}"
    client = sealed.recipient if sealed.sender == SERVER else sealed.sender
    for field, wanted in (("client_id", client), ("job", sealed.job), ("run", sealed.run)):
        said = getattr(body, field, wanted)
        if said != wanted:
            return f"says that its {field} is {said!r}"
    if isinstance(body, Presence) and (body.others or body.dropped[0]):
        return "tells of other clients, who have not signed it"
    return None
