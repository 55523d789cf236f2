"""Compare clients' clocks with this machine's, by what they say of themselves meanwhile.

Each hello and heartbeat says when it was sent. A process with a clock that is wrong takes tasks
for expired, or manifests for not yet valid.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator

from flmq.broker.check import Check
from flmq.common.cleaning import one_line
from flmq.common.errors import BrokerError, FlmqError, PeerError
from flmq.e2e.names import SIGNATURE_BYTES
from flmq.transport import PRESENCE, Binding, Queue, Topology, Transport
from flmq.wire import Presence, Sealed, decode

__all__ = ["clocks_of_clients"]

_NAME = "clients' clocks"
_APART = 5.0
"""Seconds that a clock may be off: what was sent may have waited in the broker for a while."""
_SHOWN = 5
_MOST = 20_000
"""Most clients that are told apart."""
_LONGEST = 80


def clocks_of_clients(
    connect: Callable[[], Transport],
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    unix_clock: Callable[[], float] = time.time,
) -> Check:
    """Listen to clients for ``seconds``, over what ``connect`` returns, and judge their clocks."""
    if seconds <= 0:
        return Check(
            _NAME,
            None,
            "not asked",
            "flmq doctor --listen 35 hears a heartbeat of each (they come every 30 s, or as "
            "--heartbeat says)",
        )
    try:
        with connect() as transport:
            offsets = _heard(transport, seconds, clock, unix_clock)
    except FlmqError as error:
        mend = (
            "where all is provisioned, nobody may listen but servers: run it with the login of an "
            "administrator, FLMQ_BROKER_URL"
        )
        return Check(_NAME, None, f"not known: {error}", mend)
    return _judged(offsets, seconds)


def _heard(
    transport: Transport,
    seconds: float,
    clock: Callable[[], float],
    unix_clock: Callable[[], float],
) -> dict[str, float]:
    """Return by how many seconds each client's clock is ahead; the nearest of what it said."""
    name = f"{PRESENCE}.doctor.{secrets.token_hex(6)}"
    ears = Queue(name, durable=False, exclusive=True)
    transport.declare(Topology(queues=(ears,), bindings=(Binding(PRESENCE, name, "#"),)))
    consumer = transport.consumer([name], prefetch=500)
    offsets: dict[str, float] = {}
    try:
        end = clock() + seconds
        while (left := end - clock()) > 0:
            delivery = consumer.receive(timeout=min(left, 0.5))
            if delivery is None:
                continue
            for client_id, sent in _said(bytes(delivery.message.body)):
                ahead = sent - unix_clock()
                known = offsets.get(client_id)
                if known is None and len(offsets) >= _MOST:
                    continue
                if known is None or abs(ahead) < abs(known):
                    offsets[client_id] = ahead
            consumer.ack(delivery)
    finally:
        consumer.close()
        with contextlib.suppress(BrokerError):
            transport.delete_queue(name)
    return offsets


def _said(data: bytes) -> Iterator[tuple[str, float]]:
    """Yield the clients of whom a message tells, and when it says that it was sent."""
    try:
        body = decode(data)
        if isinstance(body, Sealed) and body.kind == Presence.__name__:
            body = decode(body.letter[SIGNATURE_BYTES:])  # signed, and for everybody to read
    except PeerError:
        return
    if isinstance(body, Presence) and body.sent_unix_ms > 0:
        for one, _ in body.each(""):
            yield one.client_id, body.sent_unix_ms / 1000


def _judged(offsets: dict[str, float], seconds: float) -> Check:
    if not offsets:
        found = f"no client was heard in {seconds:g} s"
        return Check(_NAME, None, found, "flmq doctor --listen 35, while clients are up")
    wrong = sorted(
        ((client_id, ahead) for client_id, ahead in offsets.items() if abs(ahead) > _APART),
        key=lambda each: -abs(each[1]),
    )
    if not wrong:
        return Check(
            _NAME, True, f"those of {len(offsets)} clients agree with ours within {_APART:.0f} s"
        )
    named = ", ".join(
        f"{one_line(client_id, _LONGEST)} is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}"
        for client_id, off in wrong[:_SHOWN]
    )
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return Check(
        _NAME,
        False,
        f"{len(wrong)} of {len(offsets)} clients have another time than we: {named}{more}",
        "have all set by NTP: timedatectl set-ntp true, or chrony",
    )
