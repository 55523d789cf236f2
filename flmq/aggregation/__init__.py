"""Combining what clients send: exact, associative, independent of the order of arrival."""

from __future__ import annotations

from flmq.aggregation.mean import weighted_mean
from flmq.aggregation.scalars import weighted_mean_of_scalars

__all__ = ["weighted_mean", "weighted_mean_of_scalars"]
