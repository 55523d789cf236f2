"""The messages of regional aggregation, as data: orders, partial sums, reports.

An *aggregator* adds up the replies of one site's clients. What it is to add up says an
`AggregateOrder`; its answer is a `PartialSum`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b

from flmq.common.phase import Phase
from flmq.common.times import WorkerTimes
from flmq.common.typing import FitRes, Parameters
from flmq.wire.blobs import BlobRef
from flmq.wire.envelopes import Failure

__all__ = [
    "MAX_ASKED",
    "MAX_COVERS",
    "MAX_ORDERS",
    "PARTIAL_TENSORS",
    "AggregateOrder",
    "AggregatorReport",
    "Asked",
    "EntryOutcome",
    "OrderInHand",
    "PartialEntry",
    "PartialSum",
    "ReplyRule",
    "SendPartial",
    "aggregator_name",
    "bitmap",
    "list_digest",
    "marked",
]

MAX_ASKED = 16_000
"""Most asks of one order: as many as one message may hold with all their fields."""
MAX_COVERS = 1_000
"""Most sites that one aggregator may cover."""
MAX_ORDERS = 1_000
"""Most orders that one aggregator may report."""
PARTIAL_TENSORS = "flmq.partial"
"""Type of the two tensors of a partial sum: the accumulator's bytes, and the entries."""

_LIST_DIGEST = 8


class ReplyRule(Enum):
    """What a reply's parameters must be to count."""

    LIKE_SENT = "like sent"
    """The number of tensors, shapes and dtypes that were sent, and all values finite."""
    FINITE = "finite"
    """All values finite."""
    NONE = "none"
    """Anything."""


class EntryOutcome(Enum):
    """What became of an ask, in a partial sum."""

    ACCEPTED = "accepted"
    """Its reply is in the sum."""
    FAILED = "failed"
    """The client has no result."""
    REJECTED = "rejected"
    """Its reply does not fit what was asked."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One client asked for one thing, in an order."""

    task_id: str
    client_id: str
    nonce: bytes
    """What its reply must echo."""
    name: str = ""
    """The ask's name; empty if that is the client's id."""
    site: str = ""
    """The client's site; empty if that is the order's."""


@dataclass(frozen=True, slots=True)
class AggregateOrder:
    """Server, or an aggregator above, to an aggregator: add up the replies to these asks."""

    task_id: str
    """The order's own, made as a client's is, of the name `aggregator_name`."""
    job: str
    server_round: int
    phase: Phase
    site: str
    """The aggregator's."""
    epoch: int
    nonce: bytes
    """To be echoed in the partial sum."""
    run: str
    parameters: Parameters
    """What the clients were sent."""
    asks: tuple[Asked, ...]
    """Those still awaited. A later order with this id leaves out some, and never adds any."""
    call: int = 0
    """As in a `PhaseKey`."""
    rule: ReplyRule = ReplyRule.LIKE_SENT
    cast: bool = False
    """Whether float tensors of another dtype than was sent are cast to it."""
    deadline_unix_ms: int | None = None
    """Milliseconds since 1970 UTC; None for no deadline."""
    timeout_seconds: float | None = None
    """Seconds that the clients have; None for no limit."""
    model: BlobRef | None = None
    """Reference to the parameters left out of ``parameters``."""
    reply_codec: str = ""
    """Codec for the replies' parameters, relative to ``model``; empty for none."""
    max_reply_bytes: int | None = None
    """Most bytes of a reply's parameters; None: by what was sent."""
    answer_to: str = ""
    """Site of the aggregator that wants the partial sum; empty: the server does."""

    @property
    def client_id(self) -> str:
        """The name under which the order's id is made and its receipt is sent."""
        return aggregator_name(self.site)


@dataclass(frozen=True, slots=True)
class PartialSum:
    """Aggregator to whom its order is of: the sum of the replies to its asks, and who is in it.

    ``parameters`` are two tensors: the bytes of the exact accumulator (none, if no reply counts),
    and the entries (`flmq.wire.entries`).
    """

    task_id: str
    """The order's, as are all other fields but the last two."""
    job: str
    server_round: int
    phase: Phase
    site: str
    epoch: int
    nonce: bytes
    run: str
    parameters: Parameters
    blob: BlobRef | None = None
    """Reference to the parameters left out of ``parameters``: they follow in chunks."""

    @property
    def client_id(self) -> str:
        """The name under which the order's id is made and its receipt is sent."""
        return aggregator_name(self.site)


@dataclass(frozen=True, slots=True)
class PartialEntry:
    """What became of one ask of an order."""

    task_id: str
    client_id: str
    outcome: EntryOutcome
    res: FitRes | Failure
    """The answer without its parameters, or the failure."""
    reason: str = ""
    """Why it was rejected; else empty."""
    seconds: float = 0.0
    """Seconds that the call took on the client."""
    bytes: int = 0
    """Bytes received for the reply."""
    digest: str = ""
    """BLAKE3 of the reply's parameters as added up, 64 hexadecimal digits; empty: not added."""
    times: WorkerTimes | None = None
    """The reply's."""


@dataclass(frozen=True, slots=True)
class SendPartial:
    """To an aggregator: send what you have for this order now."""

    task_id: str
    """The order's."""
    job: str
    epoch: int
    run: str = ""


@dataclass(frozen=True, slots=True)
class OrderInHand:
    """What an aggregator has of one order."""

    task_id: str
    list_digest: bytes
    """`list_digest` of the asks that ``held`` is over."""
    held: bytes
    """`bitmap` over the order's asks: which replies are durable here."""
    answered: bool = False
    """Whether its partial sum is made, so that nothing is added to it any more."""


@dataclass(frozen=True, slots=True)
class AggregatorReport:
    """Aggregator to whoever listens: I am here, and this is what I have."""

    site: str
    instance: str
    """Unique to the process."""
    covers: tuple[str, ...]
    """Sites whose clients' replies it adds up: its own, and those of aggregators below it."""
    orders: tuple[OrderInHand, ...] = ()
    sent_unix_ms: int = 0
    """Milliseconds since 1970 UTC, by its own clock."""
    report_seconds: float = 0.0
    """Maximum seconds until the next report; 0 if none will come."""
    flmq_version: str = ""


def aggregator_name(site: str) -> str:
    """Return the name of a site's aggregator where a client's id would stand.

    No client can have it: a client id contains no '!'.
    """
    return f"!{site}"


def list_digest(asks: Sequence[Asked]) -> bytes:
    """Return 8 bytes that tell lists of asks apart, by their task ids."""
    joined = "\n".join(ask.task_id for ask in asks)
    return blake2b(joined.encode(), digest_size=_LIST_DIGEST, person=b"flmq.asks").digest()


def bitmap(asks: Sequence[Asked], held: frozenset[str] | set[str]) -> bytes:
    """Return a bit for each ask, the first the lowest of the first byte: its id is in ``held``."""
    bits = bytearray(-(-len(asks) // 8))
    for place, ask in enumerate(asks):
        if ask.task_id in held:
            bits[place >> 3] |= 1 << (place & 7)
    return bytes(bits)


def marked(asks: Sequence[Asked], held: bytes) -> frozenset[str]:
    """Return the task ids that a `bitmap` over ``asks`` marks; what it lacks is not marked."""
    return frozenset(
        ask.task_id
        for place, ask in enumerate(asks)
        if place >> 3 < len(held) and held[place >> 3] >> (place & 7) & 1
    )
