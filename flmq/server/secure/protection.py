"""What a job's server signs and seals, and what it takes: from clients that it trusts, alone.

What is for one client alone is sealed to its key (`flmq.messaging.sealed` says which kinds), and
all is signed. Replies are sealed to the session's key; presence is signed, for the servers of all
jobs hear it. What a message says is checked where plain messages are checked: here it is made sure
that it comes from the client that it names, and was made for this run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from flmq.common.errors import MalformedMessage
from flmq.e2e.errors import Forged, Mismatch, NotProtected, UnknownKey
from flmq.e2e.keys import PublicIdentity
from flmq.e2e.letters import Heading
from flmq.e2e.manifest import Manifest
from flmq.e2e.names import CHUNK_OVERHEAD, EVERYBODY, SERVER
from flmq.e2e.primitives import SIGNATURE_BYTES
from flmq.messaging.protection import Opened
from flmq.messaging.sealed import is_sealed, open_body, seal_body
from flmq.messaging.speakers import Speakers, speaker_of
from flmq.server.job_identity import Job
from flmq.server.secure.keys import JobKeys, session_of
from flmq.transport import Delivery
from flmq.wire import (
    AggregatorReport,
    Body,
    JobEnded,
    Presence,
    Receipt,
    RollCall,
    Sealed,
    Task,
    decode,
)

__all__ = ["JobProtection", "Stranger"]

_ADDRESSED = {"Presence": EVERYBODY, "ModelRequest": SERVER, "Reply": SERVER}
"""What clients send, and to whom; presence is for the servers of all jobs."""

_RENEWED_EVERY = 60.0
"""Seconds after which a manifest is signed anew, long before it is over."""

Stranger = Callable[[Presence, str, str], None]
"""Is told of presence that counts for nothing: why, to go on a sentence about clients, and what
their operators are to do."""


def _ignored(presence: Presence, why: str, do: str) -> None:
    """Do nothing about a stranger."""


class JobProtection:
    """One run's protection. Thread-safe."""

    chunk_overhead = CHUNK_OVERHEAD

    def __init__(self, job: Job, keys: JobKeys, clock: Callable[[], float] = time.time) -> None:
        """Speak for ``job``; ``clock`` gives Unix seconds."""
        self._job = job
        self._keys = keys
        self._clock = clock
        self._session = session_of(job)
        self._manifest = self._issue()
        self.on_stranger: Stranger = _ignored
        self.speakers = Speakers(required=False)
        """Who may be believed to be a stranger: what others say in its name refuses nobody."""

    def model_key(self, digest: str, chunk_bytes: int) -> bytes:
        """Return the content key of a model: the same in every server of the run."""
        return self._session.model_key(digest, chunk_bytes)

    # -- what is said ------------------------------------------------------------------------

    def protect(
        self, body: Body, *, recipient: str = "", message_id: str = "", correlation_id: str = ""
    ) -> bytes:
        """Sign a message, and seal it to the client that it is for if its kind is sealed.

        Raises:
            KeyError: that client is not trusted: nobody asks it.
        """
        job = self._job
        kind, job = type(body).__name__, self._job
        match body:
            case Task(client_id=client_id) | Receipt(client_id=client_id):
                recipient = client_id
            case RollCall() | JobEnded():
                pass
            case _:
                raise TypeError(f"a protected job sends no {kind}")
        heading = Heading(
            kind,
            SERVER,
            recipient or EVERYBODY,
            job.name,
            job.run_id,
            message_id,
            correlation_id,
        )
        sealer = self._keys.trusted[recipient].sealer if is_sealed(kind) else None
        return seal_body(body, heading, self._session.signer, sealer, self._current().encoded)

    def _current(self) -> Manifest:
        """Return a manifest that is good for a while."""
        now, manifest = self._clock() * 1000, self._manifest
        # If it begins later than now, this machine's clock was ahead and has been set right. And
        # if the last run's server had a clock ahead of ours, clients take this run's manifest for
        # the older one, until we sign one that is later.
        if not manifest.issued_unix_ms <= now <= manifest.issued_unix_ms + _RENEWED_EVERY * 1000:
            self._manifest = self._issue()
        return self._manifest

    def _issue(self) -> Manifest:
        keys, job = self._keys, self._job
        return Manifest.issue(
            keys.authority, job.name, job.run_id, self._session, keys.roster, self._clock()
        )

    # -- what is heard -----------------------------------------------------------------------

    def open(self, body: Body, delivery: Delivery) -> Opened:
        """Return the message of a trusted client in ``body``.

        Raises:
            NotProtected: it is plain.
            UnknownKey: it is signed by a client that is not trusted.
            Forged: it was changed, or made by, for or as something else, or is sent in the name of
                another.
        """
        if isinstance(body, AggregatorReport):
            # Nothing follows from it here but a line of the log: sums are not ordered.
            return Opened(body, delivery.message.body)
        if not isinstance(body, Sealed):
            self._check_speaker(delivery, body)
            raise self._plain(body)
        client = self._keys.trusted.get(body.sender)
        if client is None:
            self._check_speaker(delivery, body)
            raise self._unknown(body)
        try:
            return self._opened(body, client, delivery)
        except Forged:
            self._check_speaker(delivery, body)
            if body.kind == "Presence":
                self._tell_stranger(
                    body,
                    "sign with another key than this server has for their names",
                    "give the server their public keys by --trust, and start it again",
                )
            raise

    def _opened(self, sealed: Sealed, client: PublicIdentity, delivery: Delivery) -> Opened:
        wanted = _ADDRESSED.get(sealed.kind)
        if wanted is None:
            raise Forged(f"a server takes no {sealed.kind} of {sealed.sender!r}")
        to_the_job = wanted == SERVER
        job, run = (self._job.name, self._job.run_id) if to_the_job else ("", "")
        if (sealed.recipient, sealed.job, sealed.run) != (wanted, job, run):
            raise Forged(
                f"the {sealed.kind} from {sealed.sender!r} is to {sealed.recipient!r}, in job "
                f"{sealed.job!r} and run {sealed.run!r}: it was made for somewhere else"
            )
        return open_body(sealed, delivery, client.verifier, self._session.opener)

    # -- whom nobody trusts ------------------------------------------------------------------

    def _check_speaker(self, delivery: Delivery, body: Body) -> None:
        """Check that those whom an unsigned message names have sent it, by the broker's word.

        Raises:
            Forged: somebody else has.
        """
        names: list[str | None]
        match body:
            case Sealed(sender=name):
                names = [name]
            case Presence():
                names = [one.client_id for one, _ in body.each("")]
            case _:
                names = [getattr(body, "client_id", speaker_of(delivery.routing_key))]
        if mismatch := self.speakers.mismatch(delivery, names):
            raise Forged(str(mismatch))

    def _plain(self, body: Body) -> Mismatch:
        """Return why a plain message counts for nothing, having told its client."""
        if isinstance(body, Presence):
            why, do = "speak without keys", "start each with --e2e, --key and --server-key"
            for one, _ in body.each(""):
                self.on_stranger(one, why, do)
        name = getattr(body, "client_id", "somebody")
        return NotProtected(
            name,
            f"client {name!r} sends a {type(body).__name__} without keys, and job "
            f"{self._job.name!r} takes none: start it with --e2e, --key and --server-key",
        )

    def _unknown(self, sealed: Sealed) -> UnknownKey:
        """Return why a message of an unknown client counts for nothing, having told the client."""
        do = "give the server their public keys by --trust, and start it again"
        self._tell_stranger(sealed, "have keys that this server does not trust", do)
        return UnknownKey(
            sealed.sender,
            f"client {sealed.sender!r} is not among the {len(self._keys.trusted)} that job "
            f"{self._job.name!r} trusts: if it may take part, put {sealed.sender}.pub where "
            "--trust points, and start this server again: it goes on where it was",
        )

    def _tell_stranger(self, sealed: Sealed, why: str, do: str) -> None:
        """Tell of presence whose signature says nothing here."""
        if sealed.kind != "Presence":
            return
        try:
            inside = decode(sealed.letter[SIGNATURE_BYTES:])
        except MalformedMessage:
            return
        if isinstance(inside, Presence) and inside.client_id == sealed.sender:
            self.on_stranger(replace(inside, others=()), why, do)
