"""Which replies count: what a reply must satisfy before a strategy sees it.

A refused reply is listed among ``failures`` with the reason that these functions return.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from flmq.common.dtypes import first_not_finite
from flmq.common.errors import MalformedMessage
from flmq.common.parameter import TensorSpec, bytes_to_ndarray, tensor_spec
from flmq.common.tensor_names import tensor_called
from flmq.common.typing import EvaluateRes, FitRes, Parameters
from flmq.server.strategy.partial.subset import NamedSubset, NoSuchTensors, part_of
from flmq.wire import each_tensor

__all__ = ["ParametersSpec", "ReplyCheck", "check_evaluate_reply", "check_fit_reply", "spec_of"]

_NUMPY = "numpy.ndarray"


class ReplyCheck(Enum):
    """How strictly a fit reply's parameters are checked; ``num_examples`` always is."""

    LIKE_SENT = "like sent"
    """The number of tensors, shapes and dtypes that were sent, and all values finite."""
    FINITE = "finite"
    """All values finite; for strategies whose clients return other tensors than they got."""
    NONE = "none"
    """No check; for strategies that decode and check the bytes themselves."""

    @staticmethod
    def subset(*names: str) -> NamedSubset:
        """Return the check that the tensors that match ``names`` are like those sent.

        ``names`` are patterns as in a shell, ``"*.lora_*"``. A reply may have these tensors alone,
        or all of the model's, of which the others are not looked at. `TrainOnly` is a strategy
        around another one that averages such replies.
        """
        return NamedSubset(names)


@dataclass(frozen=True, slots=True)
class ParametersSpec:
    """The layout of parameters, a few bytes: all that a reply is compared with."""

    tensor_type: str
    count: int
    """Number of tensors."""
    specs: tuple[TensorSpec, ...]
    """Spec of each tensor; empty if they are not of type "numpy.ndarray"."""
    names: tuple[str, ...] = ()
    """The name of each tensor, or none at all."""

    def part(self, places: Sequence[int]) -> ParametersSpec:
        """Return the layout of the named tensors at ``places``."""
        specs = tuple(self.specs[place] for place in places) if self.specs else ()
        names = tuple(self.names[place] for place in places)
        return ParametersSpec(self.tensor_type, len(places), specs, names)


def spec_of(sent: Parameters) -> ParametersSpec:
    """Return the layout of parameters that are sent; their values are not read."""
    known = sent.tensor_type == _NUMPY
    specs = tuple(tensor_spec(tensor) for tensor in sent.tensors) if known else ()
    return ParametersSpec(sent.tensor_type, len(sent.tensors), specs, tuple(sent.names))


def check_fit_reply(
    sent: Parameters | ParametersSpec, res: FitRes, check: ReplyCheck | NamedSubset
) -> str | None:
    """Return why ``res`` does not count as a reply to ``sent``, or None if it does.

    If ``sent`` has no tensors, there is nothing to compare with and LIKE_SENT means FINITE. Tensors
    of another type than "numpy.ndarray" are the user's own format: only their type and number are
    compared.
    """
    if reason := _check_num_examples(res.num_examples, "trained on"):
        return reason
    if check is ReplyCheck.NONE:
        return None
    like, got = None, res.parameters
    if check is not ReplyCheck.FINITE:
        outline = sent if isinstance(sent, ParametersSpec) else spec_of(sent)
        like = outline if outline.count else None
    if like is not None and isinstance(check, NamedSubset):
        try:
            places = check.places(like.names)
        except NoSuchTensors as error:
            return str(error)
        part = part_of(got, places, like.names)
        if isinstance(part, str):
            return part
        like, got = like.part(places), part
    if like is not None and (reason := _check_outline(like, got)):
        return reason
    if got.tensor_type != _NUMPY:
        return None
    return _check_tensors(like, got)


def check_evaluate_reply(res: EvaluateRes) -> str | None:
    """Return why ``res`` does not count, or None: its loss must be finite, its weight positive."""
    if reason := _check_num_examples(res.num_examples, "evaluated on"):
        return reason
    if not math.isfinite(res.loss):
        return (
            f"loss is {res.loss}: a mean needs finite losses; look for NaN or infinity in the "
            "client's data, or for a logarithm of 0 in its loss function"
        )
    return None


def _check_num_examples(num_examples: int, verb: str) -> str | None:
    if num_examples > 0:
        return None
    return (
        f"num_examples is {num_examples}: it is the reply's weight in the mean and must be 1 or "
        f"more; return the number of examples that were {verb}"
    )


def _check_outline(sent: ParametersSpec, got: Parameters) -> str | None:
    """Compare what can be compared without reading a tensor."""
    if got.tensor_type != sent.tensor_type:
        return (
            f"tensors are of type {got.tensor_type!r}, the model's of {sent.tensor_type!r}: "
            "return parameters of the type that came"
        )
    if got.names and sent.names and (reason := _check_names(sent.names, got.names)):
        return reason
    if len(got.tensors) != sent.count:
        return (
            f"{len(got.tensors)} tensors came, the model has {sent.count}: return all of "
            "the model's tensors, in their order"
        )
    return None


def _check_names(sent: tuple[str, ...], got: tuple[str, ...]) -> str | None:
    """Compare names: tensors are never put in order by them, as a client can do that better."""
    if got == sent:
        return None
    theirs, ours = set(got), set(sent)
    if lacking := [name for name in sent if name not in theirs]:
        what = f"tensor {lacking[0]}{_and_more(lacking)} of the model did not come"
    elif strange := [name for name in got if name not in ours]:
        what = f"the model has no tensor {strange[0]}{_and_more(strange)}"
    else:
        place = next(
            i for i, (one, other) in enumerate(zip(sent, got, strict=True)) if one != other
        )
        what = f"tensor {got[place]} came where the model has {sent[place]}"
    return f"{what}: return all of the model's tensors, in their order"


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _check_tensors(like: ParametersSpec | None, got: Parameters) -> str | None:
    """Check each tensor's values, and its shape and dtype against ``like``, if given."""
    names = got.names if like is None else like.names
    for index, tensor in enumerate(each_tensor(got)):
        called = tensor_called(index, names)
        try:
            # A view of the bytes; the values are not copied.
            values = bytes_to_ndarray(tensor, copy=False)
        except MalformedMessage as error:
            return f"{called} cannot be read ({error}): send what numpy.save writes"
        if like is not None:
            spec = TensorSpec.of(values)
            if reason := _check_spec(called, like.specs[index], spec):
                return reason
        if (at := first_not_finite(values)) is not None:
            return (
                f"{called} holds NaN or infinity (first at flat position {at}): training "
                "diverged; lower the learning rate, clip gradients, or look at the client's data"
            )
    return None


def _check_spec(called: str, sent: TensorSpec, got: TensorSpec) -> str | None:
    if got.dtype != sent.dtype:
        return (
            f"{called} is {got.dtype}, the model's is {sent.dtype}: cast before returning, "
            f"with .astype({str(sent.dtype)!r})"
        )
    if got.shape != sent.shape:
        return (
            f"{called} has shape {got.shape}, the model's has {sent.shape}: return the "
            "model's tensors, in their order"
        )
    return None
