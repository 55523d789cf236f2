"""The options of an aggregator, as one value."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flmq.common.errors import UsageError
from flmq.common.options import check_ranges, option
from flmq.observe.vitals import Vitals
from flmq.transport import DEFAULT_SITE
from flmq.wire.bounds import check_word

__all__ = ["AggregatorOptions", "InvalidAggregatorOptions"]


class InvalidAggregatorOptions(UsageError):
    """Options of an aggregator contradict each other."""


@dataclass(frozen=True, slots=True)
class AggregatorOptions:
    """The options of an aggregator."""

    site: str = option(DEFAULT_SITE, "The site whose clients' replies it adds up.", env="FLMQ_SITE")
    regions: str = option(
        "",
        "Sites below this one, a,b: their aggregators send their partial sums here.",
        env="FLMQ_REGIONS",
    )
    state_dir: Path | None = option(
        None,
        "Folder that outlives the process, for replies that are not yet sent on. Without it, "
        "clients send them again after a kill.",
        env="FLMQ_STATE_DIR",
    )
    standby: bool = option(
        False,
        "Wait while another aggregator serves the site, and take over when it ends; or fail at "
        "once.",
        names=("--standby",),
    )
    report_every: float = option(
        2.0,
        "Seconds between reports to the server of what is held here.",
        env="FLMQ_REPORT_EVERY",
        at_least=0.1,
        at_most=60,
        unit="seconds",
    )
    region_patience: float = option(
        60.0,
        "Seconds without a word of an aggregator below after which its clients' replies go to the "
        "server directly.",
        env="FLMQ_AGGREGATOR_PATIENCE",
        at_least=1,
        unit="seconds",
    )
    vitals: Vitals = field(default_factory=Vitals, compare=False)
    """What the aggregator says of itself when it is asked: see `flmq.monitoring`."""

    speakers: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Users that speak for several clients of the site, and for whom."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            InvalidAggregatorOptions: a name that no site can have, a site below itself, or a number
                out of its range.
        """
        check_ranges(self, InvalidAggregatorOptions)
        below = self.below
        try:
            for site in (self.site, *below):
                check_word(site, "site")
        except ValueError as error:
            raise InvalidAggregatorOptions(f"{error}: give --site and --regions so") from error
        if len({self.site, *below}) <= len(below):
            raise InvalidAggregatorOptions(
                f"--regions {self.regions}: each is named once, and {self.site} itself is none of "
                "them"
            )

    @property
    def below(self) -> tuple[str, ...]:
        """The sites below this one."""
        return tuple(filter(None, (name.strip() for name in self.regions.split(","))))
