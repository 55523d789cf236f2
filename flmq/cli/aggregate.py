"""``flmq aggregate``: the aggregator of a site."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from flmq.cli.monitoring import Monitoring
from flmq.cli.options import Broker, with_options
from flmq.cli.process import log_to_stderr
from flmq.cli.stopping import in_order, typed_again
from flmq.common.environment import broker_url
from flmq.common.urls import parse_broker_url
from flmq.monitoring.role import Role
from flmq.provision.speakers import speakers_of
from flmq.region import AggregatorOptions, run_aggregator

__all__ = ["aggregate"]


@with_options
def aggregate(
    broker: Broker = None,
    *,
    options: AggregatorOptions,
    monitoring: Monitoring,
    federation: Annotated[
        Path | None,
        typer.Option(
            envvar="FLMQ_FEDERATION",
            help="federation.toml: know which users speak for several clients of the site.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Add up the replies of one site's clients beside its broker, and send on one partial sum."""
    monitoring.begin()
    log_to_stderr(logging.INFO)
    url = broker_url(broker)
    if federation is not None:
        vhost = parse_broker_url(url).vhost
        known = speakers_of(federation, vhost, site=options.site)
        options = replace(options, speakers=known)
    with in_order(lambda: _goes_on(options)), monitoring.shown(Role.AGGREGATOR, options.vitals):
        run_aggregator(url, options)


def _goes_on(options: AggregatorOptions) -> str:
    """Return text on what happens to a stopped aggregator's work, and how to resume it."""
    if options.state_dir is None:
        what = "what it had added up is asked for again, and nothing is trained twice"
    else:
        what = f"{options.state_dir} keeps what it has added up"
    return f"{what}. Go on with: {typed_again()}"
