"""The aggregator of a site: it adds up its clients' replies, and sends on one partial sum."""

from __future__ import annotations

from flmq.region.app import run_aggregator
from flmq.region.options import AggregatorOptions

__all__ = ["AggregatorOptions", "run_aggregator"]
