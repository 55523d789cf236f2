"""Read a partial sum of an aggregator: its entries, and the mean, which must fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flmq.aggregation.tensors import averaged
from flmq.common.errors import InconsistentTensors, MalformedMessage, PeerError, StoredDataError
from flmq.common.parameter import TensorSpec
from flmq.common.typing import FitRes, Parameters
from flmq.server.strategy.combine import WeightedMean
from flmq.wire import EntryOutcome, PartialEntry
from flmq.wire.entries import read_entries
from flmq.wire.failures import why_failed
from flmq.wire.regional import PARTIAL_TENSORS

__all__ = ["PartialRefused", "entries_of", "mean_of"]


class PartialRefused(PeerError):
    """A partial sum does not fit its order; the text goes on from "it"."""


def entries_of(parameters: Parameters, asked: Mapping[str, str]) -> list[PartialEntry]:
    """Return who is in a partial sum; ``asked`` has the client id of each task of its order.

    Raises:
        PartialRefused: the entries are damaged, or cannot be of this order.
    """
    if parameters.tensor_type != PARTIAL_TENSORS or len(parameters.tensors) != 2:
        raise PartialRefused("does not have the two tensors of a partial sum")
    try:
        entries = read_entries(parameters.tensors[1], len(asked))
    except MalformedMessage as error:
        raise PartialRefused(f"cannot be read: {error}") from error
    seen = set[str]()
    for entry in entries:
        if asked.get(entry.task_id) != entry.client_id:
            raise PartialRefused(f"lists {entry.client_id}, who was not asked under its order")
        if entry.task_id in seen:
            raise PartialRefused(f"lists {entry.client_id} twice")
        seen.add(entry.task_id)
        if problem := _problem(entry):
            raise PartialRefused(f"lists {entry.client_id} {problem}")
    return entries


def mean_of(
    parameters: Parameters,
    entries: Sequence[PartialEntry],
    model: Sequence[TensorSpec] | None = None,
) -> WeightedMean:
    """Return the mean in a partial sum of these entries.

    ``model`` are the specs of what was sent; None, or none: they are not compared.

    Raises:
        PartialRefused: it is damaged, or does not fit the entries or the model.
    """
    counted = [each.res for each in entries if each.outcome is EntryOutcome.ACCEPTED]
    examples = sum(res.num_examples for res in counted if isinstance(res, FitRes))
    try:
        mean = WeightedMean.restored(parameters.tensors[0], replies=len(counted), examples=examples)
    except StoredDataError as error:
        raise PartialRefused(f"cannot be read: {error}") from error
    if mean.specs is None or not model:
        return mean
    try:
        expected = tuple(map(averaged, model))
    except InconsistentTensors as error:
        raise PartialRefused(f"is of a model that has no mean: {error}") from error
    if len(mean.specs) != len(expected):
        raise PartialRefused(f"has {len(mean.specs)} tensors, and the model {len(expected)}")
    for place, (got, sent) in enumerate(zip(mean.specs, expected, strict=True)):
        if got != sent:
            raise PartialRefused(f"has a tensor {place} that is {got}, and the model's is {sent}")
    return mean


def _problem(entry: PartialEntry) -> str:
    """Return why an entry contradicts itself; empty: it does not."""
    failed = why_failed(entry.res)
    if entry.outcome is EntryOutcome.FAILED and failed is None:
        return "as failed, without a failure"
    if entry.outcome is not EntryOutcome.ACCEPTED:
        return ""
    if failed is not None or not isinstance(entry.res, FitRes):
        return "as accepted, though it failed"
    if entry.res.num_examples < 1:
        return f"with {entry.res.num_examples} examples"
    return ""
