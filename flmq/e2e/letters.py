"""Sign a message, and seal it where one party alone may read it.

A letter is bound to its *heading*: what kind of message it is, who sends it to whom, in which job
and run, and the ids of the AMQP message that carries it. All of it is signed together with the
message, and is the ``info`` of the seal, so a letter opens nowhere but where it was sent. Signed
first and then sealed: nobody but the recipient sees who signed what, and as the recipient's name is
in what is signed, he cannot pass it on to another as if it were for him.
"""

from __future__ import annotations

from dataclasses import dataclass

from flmq.e2e.errors import Forged
from flmq.e2e.primitives import (
    SEAL_OVERHEAD,
    SIGNATURE_BYTES,
    Ed25519PrivateKey,
    Ed25519PublicKey,
    X25519PrivateKey,
    X25519PublicKey,
    framed,
    open_sealed,
    seal,
    sign,
    verify,
)

__all__ = ["LETTER_OVERHEAD", "Heading", "close_letter", "open_letter"]

LETTER_OVERHEAD = SIGNATURE_BYTES + SEAL_OVERHEAD
"""Bytes by which a letter is longer than its message, at most."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What a letter is bound to."""

    kind: str
    """The kind of message, such as ``Task``: a letter of one kind is none of another."""
    sender: str
    recipient: str
    job: str = ""
    run: str = ""
    message_id: str = ""
    correlation_id: str = ""

    def framed(self, domain: str, *more: bytes) -> bytes:
        """Return it as unambiguous bytes for one purpose, with ``more`` behind it."""
        parts = (
            self.kind,
            self.sender,
            self.recipient,
            self.job,
            self.run,
            self.message_id,
            self.correlation_id,
        )
        return framed(domain, *parts, *more)

    def __str__(self) -> str:
        """Name it in an error."""
        of = f" of job {self.job!r}" if self.job else ""
        return f"the {self.kind} from {self.sender!r} to {self.recipient!r}{of}"


def close_letter(
    heading: Heading,
    message: bytes,
    signer: Ed25519PrivateKey,
    sealer: X25519PublicKey | None,
) -> bytes:
    """Sign ``message``, and seal it to ``sealer``; None: anybody may read it."""
    letter = sign(signer, heading.framed("message", message)) + message
    return letter if sealer is None else seal(sealer, letter, heading.framed("seal"))


def open_letter(
    heading: Heading,
    letter: bytes,
    verifier: Ed25519PublicKey,
    opener: X25519PrivateKey | None,
) -> bytes:
    """Return the message that `close_letter` was given; ``opener``: None if it is not sealed.

    Raises:
        Forged: it was signed or sealed by, for or as something else, or was changed.
    """
    if opener is not None:
        letter = open_sealed(opener, letter, heading.framed("seal"), str(heading))
    if len(letter) < SIGNATURE_BYTES:
        raise Forged(f"{heading} is too short to be signed")
    signature, message = letter[:SIGNATURE_BYTES], letter[SIGNATURE_BYTES:]
    verify(verifier, signature, heading.framed("message", message), str(heading))
    return message
