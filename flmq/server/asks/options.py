"""Define the options of a coordinator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flmq.common.errors import UsageError
from flmq.common.options import check_ranges, option
from flmq.common.typing import Scalar
from flmq.server.presence.allow_list import read_allow_list
from flmq.server.secure.options import Protecting
from flmq.transport import DEFAULT_SITE
from flmq.wire.bounds import MAX_HEARTBEAT, MIN_HEARTBEAT
from flmq.wire.codecs import CODECS, get_codec

__all__ = ["CoordinatorOptions", "InvalidCoordinatorOptions"]


class InvalidCoordinatorOptions(UsageError):
    """A server option is out of range."""


@dataclass(frozen=True, slots=True)
class CoordinatorOptions:
    """The options of a coordinator: how it asks clients."""

    heartbeat: float = option(
        30.0,
        "Seconds between clients' signs of life; 2.5 of them missed is away.",
        env="FLMQ_HEARTBEAT",
        at_least=MIN_HEARTBEAT,
        at_most=MAX_HEARTBEAT,
        unit="seconds",
    )
    sites: tuple[str, ...] = option(
        (DEFAULT_SITE,),
        "Datacenters whose clients are called at once, the server's own first; others are once "
        "one of their clients is heard.",
        names=("--site",),
        env="FLMQ_SITES",
        typed_as=list[str],
        show_default=False,
        read=tuple,
    )
    compression: str = option(
        "none",
        f"How clients compress their replies: {', '.join(CODECS)}. zstd loses nothing; the others "
        "round, within stated bounds (docs/performance.md).",
        env="FLMQ_COMPRESSION",
    )
    max_reply_bytes: int | None = option(
        None,
        "Refuse larger replies. Default: four times what was sent, and 64 MiB.",
        env="FLMQ_MAX_REPLY_BYTES",
        at_least=1,
        show_default=False,
    )
    clients_allowed: frozenset[str] | None = option(
        None,
        "File with the ids of the clients that may take part, one a line. Default: all.",
        names=("--clients-allow",),
        env="FLMQ_CLIENTS_ALLOW",
        typed_as=Path | None,
        show_default=False,
        read=read_allow_list,
    )
    aggregators: bool = option(
        True,
        "Let aggregators of sites (flmq aggregate) add up their clients' replies, where the "
        "strategy allows it.",
        names=("--aggregators/--no-aggregators",),
        env="FLMQ_AGGREGATORS",
    )
    aggregator_patience: float = option(
        60.0,
        "Seconds without a word of a site's aggregator after which its clients are asked directly.",
        env="FLMQ_AGGREGATOR_PATIENCE",
        at_least=1.0,
        at_most=3600.0,
        unit="seconds",
    )
    required_properties: Mapping[str, Scalar] = field(default_factory=dict)
    """Properties that a client's hello must have; the strategy says which."""
    speakers: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Users that speak for several clients or a site's aggregator (``!site``), and for whom."""
    protection: Protecting | None = None
    """The keys that protect the job from end to end; None: it is not protected."""
    spool_dir: Path | None = None
    """Folder for incomplete replies; None: a temporary folder."""

    def __post_init__(self) -> None:
        """Check that every option is in range.

        Raises:
            InvalidCoordinatorOptions: an option is out of its range.
        """
        check_ranges(self, InvalidCoordinatorOptions)

    @property
    def home(self) -> str:
        """The server's own site."""
        return self.sites[0] if self.sites else DEFAULT_SITE

    @property
    def codec(self) -> str:
        """Return the codec name to put in tasks; empty for no compression.

        Raises:
            UnknownCodec: no codec has that name.
            CodecUnavailable: the codec's library is not installed.
        """
        name = get_codec(self.compression).name
        return "" if name == "none" else name
