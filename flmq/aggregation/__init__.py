"""Exact, associative aggregation of what clients send; the order of arrival does not matter."""

from __future__ import annotations

from flmq.aggregation.mean import MeanAccumulator, weighted_mean
from flmq.aggregation.scalars import weighted_mean_of_scalars
from flmq.aggregation.tensors import TensorSpec, specs_of

__all__ = [
    "MeanAccumulator",
    "TensorSpec",
    "specs_of",
    "weighted_mean",
    "weighted_mean_of_scalars",
]
