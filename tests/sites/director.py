"""What befalls a run over several sites: its aggregators, brokers and links."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from tests.chaos.run import Director, Run, Script, until
from tests.chaos.schedule import Fault, Kind
from tests.chaos.supervisor import Supervisor
from tests.sites.stage import HUB, Sites

__all__ = ["SitesDirector", "aggregate_command", "aggregator", "aggregators", "as_scheduled"]

_FLMQ = str(Path(sys.executable).parent / "flmq")
_SLOW = 200_000.0
"""Bytes/s."""
_TIMEOUT = 240.0
_SERVES = "are added up at"
"""What an aggregator writes when it is ready."""


def aggregator(site: str) -> str:
    """Name of the process among the run's."""
    return f"aggregator-{site}"


def aggregate_command(site: str, state_dir: Path, regions: str = "") -> list[str]:
    """What a person types to aggregate at a site.

    Reports are so rare that one that was killed counts as there until it is back.
    """
    below = [f"--regions={regions}"] if regions else []
    return [
        *(_FLMQ, "aggregate", f"--site={site}", f"--state-dir={state_dir}"),
        *("--report-every=10", *below),
    ]


def aggregators(sites: Sites) -> Script:
    """What starts those of a run's schedule, each beside its broker, and waits until they serve."""

    def script(supervisor: Supervisor, run: Run) -> None:
        there = run.schedule.aggregators
        for site in there:
            below = ",".join(each for each in sites.below(site) if each in there)
            argv = aggregate_command(site, run.folder / "aggregators" / site, below)
            supervisor.start(aggregator(site), sites.command(site, argv))
        until(lambda: all(_SERVES in supervisor.log(aggregator(s)) for s in there), "all serve")

    return script


def as_scheduled(sites: Sites) -> Script:
    """A script that does what the run's schedule says."""

    def script(supervisor: Supervisor, run: Run) -> None:
        run.gate.touch()
        SitesDirector(sites, supervisor, run).direct(_TIMEOUT)

    return script


class SitesDirector(Director):
    """The director of a run over several sites."""

    def __init__(self, sites: Sites, supervisor: Supervisor, run: Run) -> None:
        """Direct ``run`` at ``sites``."""
        super().__init__(supervisor, run)
        self._sites = sites

    def disturb(self, fault: Fault) -> bool:
        """Do it; False where there was nobody to do it to."""
        site = HUB if fault.kind is Kind.KILL_HUB else fault.client
        match fault.kind:
            case Kind.KILL_HUB | Kind.KILL_SITE:
                self._sites.kill(site)
                self._sites.restart(site)
            case Kind.KILL_AGGREGATOR:
                return self._supervisor.kill(aggregator(site))
            case Kind.CUT_LINK:
                link = self._sites.link(site)
                link.cut()
                self.lasting(fault.seconds, link.mend)
            case Kind.SLOW_LINK:
                link = self._sites.link(site)
                link.slow(_SLOW)
                self.lasting(fault.seconds, partial(link.slow, None))
            case _:
                return super().disturb(fault)
        return True
