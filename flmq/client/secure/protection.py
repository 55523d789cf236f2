"""What a client signs and seals, and what it believes: servers whose manifests it can check.

Nothing of a job is taken that is not signed with the keys that a manifest names, which one of the
pinned servers signed (`flmq.e2e.manifest`): no task, no receipt, no roll call, no end of a job.
What a client notes for itself in its own queue is signed with its own key. A message is only taken
from the queue of the client that it is for.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from flmq.client.secure.keys import ClientKeys
from flmq.e2e.chunks import content_key
from flmq.e2e.errors import Forged, NoManifest, NotProtected, OtherRoster, Outdated
from flmq.e2e.letters import Heading
from flmq.e2e.manifest import Manifest
from flmq.e2e.names import CHUNK_OVERHEAD, EVERYBODY, SERVER
from flmq.messaging import Opened
from flmq.messaging.sealed import open_body, seal_body
from flmq.transport import Delivery, client_queue
from flmq.wire import Begun, BlobRef, Body, ModelRequest, Presence, Reply, Sealed

__all__ = ["ClientProtection"]

_K = TypeVar("_K")

_REMEMBERED = 256
"""Maximum number of manifests, and of jobs, that are remembered."""


class ClientProtection:
    """The protection of one worker's clients. Thread-safe."""

    chunk_overhead = CHUNK_OVERHEAD

    def __init__(self, keys: ClientKeys, clock: Callable[[], float] = time.time) -> None:
        """Speak for the clients of ``keys``; ``clock`` gives Unix seconds."""
        self._keys = keys
        self._clock = clock
        self._by_queue = {client_queue(client_id): client_id for client_id in keys.identities}
        self._lock = threading.Lock()
        self._read: OrderedDict[bytes, Manifest] = OrderedDict()
        """Manifests whose signatures were checked, by their bytes."""
        self._newest: OrderedDict[str, Manifest] = OrderedDict()
        """The manifest of each job that was issued last, of those that came with a message."""

    # -- what is said ------------------------------------------------------------------------

    def protect(
        self, body: Body, *, recipient: str = "", message_id: str = "", correlation_id: str = ""
    ) -> bytes:
        """Sign a message as the client that it names, and seal it to its job's server if need be.

        Raises:
            NoManifest: that server was not heard yet.
        """
        kind, job, run, sealer = type(body).__name__, "", "", None
        match body:
            case Reply() | ModelRequest():
                manifest = self._manifest(body.job, body.run if isinstance(body, Reply) else "")
                recipient, job, run = SERVER, manifest.job, manifest.run
                sealer = manifest.sealer
            case Presence():
                recipient = EVERYBODY
            case Begun():
                recipient = body.client_id
            case _:
                raise TypeError(f"a client sends no {kind}")
        identity = self._keys.identities[body.client_id]
        heading = Heading(kind, identity.name, recipient, job, run, message_id, correlation_id)
        return seal_body(body, heading, identity.signer, sealer)

    def reply_key(self, reply: Reply, ref: BlobRef) -> bytes:
        """Return the content key of a reply's blob: the same if the reply is sent again."""
        secret = self._keys.identities[reply.client_id].secret
        purpose = f"reply {reply.job} {reply.run} {reply.task_id}"
        return content_key(secret, purpose, ref.digest, ref.chunk_bytes)

    def _manifest(self, job: str, run: str) -> Manifest:
        with self._lock:
            manifest = self._newest.get(job)
        if manifest is None or (run and manifest.run != run):
            raise NoManifest(job)
        return manifest

    # -- what is heard -----------------------------------------------------------------------

    def open(self, body: Body, delivery: Delivery) -> Opened:
        """Return the message in ``body``, if it is for the client whose queue it came by.

        Raises:
            NotProtected: it is plain.
            UnknownKey: its job's manifest is of a server that is not pinned.
            ManifestExpired: its job's manifest is not valid at this time.
            OtherRoster: its job is for other clients than those pinned.
            Outdated: it is of a run that another has taken the place of.
            Forged: it was changed, or made by, for or as something else.
        """
        if not isinstance(body, Sealed):
            raise _plain(body)
        client_id = self._by_queue.get(delivery.queue)
        if client_id is None:
            raise Forged(f"a {body.kind} by a queue of no client here ({delivery.queue})")
        identity = self._keys.identities[client_id]
        if body.sender == client_id == body.recipient and body.kind == Begun.__name__:
            return open_body(body, delivery, identity.public.verifier, None)
        if body.sender != SERVER or body.recipient not in (client_id, EVERYBODY):
            raise Forged(
                f"a {body.kind} from {body.sender!r} to {body.recipient!r} in the queue of "
                f"client {client_id!r}"
            )
        manifest = self._checked(body)
        opened = open_body(body, delivery, manifest.verifier, identity.opener)
        self._hear(manifest)
        return opened

    def _checked(self, sealed: Sealed) -> Manifest:
        """Return the manifest of a server's message, if it counts here and now."""
        with self._lock:
            manifest = self._read.get(sealed.manifest)
        if manifest is None:
            manifest = Manifest.read(sealed.manifest, self._keys.authorities)
            with self._lock:
                _remember(self._read, sealed.manifest, manifest)
        if (manifest.job, manifest.run) != (sealed.job, sealed.run):
            raise Forged(
                f"a {sealed.kind} of job {sealed.job!r}, run {sealed.run!r}, under the manifest of "
                f"job {manifest.job!r}, run {manifest.run!r}"
            )
        manifest.check(self._clock())
        if self._keys.roster is not None and manifest.roster != self._keys.roster:
            raise OtherRoster(
                manifest.job,
                f"job {manifest.job!r} is for other clients than those of --roster: have the "
                "server's --trust and the clients' --roster hold the same public keys",
            )
        with self._lock:
            newest = self._newest.get(manifest.job)
        if newest is not None and newest.run != manifest.run and _is_older(manifest, newest):
            raise Outdated(
                f"{manifest.job}/{manifest.run}",
                f"job {manifest.job!r}: messages of its earlier run {manifest.run!r} are dropped, "
                f"as run {newest.run!r} was begun after it: they are late, or were repeated. "
                "If it is the new run, its server's clock is behind the last one's: set it right, "
                "and it is heard a minute later",
            )
        return manifest

    def _hear(self, manifest: Manifest) -> None:
        """Note a manifest that came with a message of its server."""
        with self._lock:
            newest = self._newest.get(manifest.job)
            if newest is None or not _is_older(manifest, newest):
                _remember(self._newest, manifest.job, manifest)


def _plain(body: Body) -> NotProtected:
    job = getattr(body, "job", "")
    kind = type(body).__name__
    return NotProtected(
        job or kind,
        f"job {job!r} signs nothing, and this client serves only jobs that are protected from end "
        f"to end (a plain {kind} came): start its server with --e2e, --keys and --trust "
        "(docs/e2e.md), or this client without --e2e",
    )


def _is_older(one: Manifest, other: Manifest) -> bool:
    return one.issued_unix_ms < other.issued_unix_ms


def _remember(known: OrderedDict[_K, Manifest], key: _K, manifest: Manifest) -> None:
    known[key] = manifest
    known.move_to_end(key)
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
