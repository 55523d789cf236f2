"""Names of a model's tensors, such as ``layer4.0.bn1.weight``: what they may be.

They come from peers and from files, and end in errors, logs and other tools' files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flmq.common.errors import InvalidTensorNames

__all__ = ["MAX_TENSOR_NAME", "check_names", "names_problem", "tensor_called"]

MAX_TENSOR_NAME = 256
"""Characters: PyTorch's longest are about half of that."""


def tensor_called(index: int, names: Sequence[str] = ()) -> str:
    """Return how an error calls tensor ``index``: by its name, or by its place if it has none."""
    return f"tensor {names[index] if index < len(names) else index}"


def check_names(names: Iterable[str], count: int) -> tuple[str, ...]:
    """Return ``names`` as a tuple.

    Raises:
        InvalidTensorNames: they cannot be the names of ``count`` tensors; says why.
    """
    if isinstance(names, str):
        raise InvalidTensorNames(f"one text, {names[:40]!r}, as names: give a name for each tensor")
    held = tuple(names)
    if (problem := names_problem(held, count)) is not None:
        raise InvalidTensorNames(problem)
    return held


def names_problem(names: Sequence[object], count: int) -> str | None:
    """Return why ``names`` cannot be those of ``count`` tensors, or None if they can.

    No names at all are valid: the tensors are then known by their place.
    """
    if not names:
        return None
    if len(names) != count:
        return f"{len(names)} names for {count} tensors: give each tensor one, or none"
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        if not isinstance(name, str):
            return f"the name of tensor {place} is a {type(name).__name__}, not a str"
        if not 0 < len(name) <= MAX_TENSOR_NAME or not name.isprintable():
            return (
                f"the name of tensor {place}, {name[:40]!a} of {len(name)} characters, is "
                f"not 1 to {MAX_TENSOR_NAME} printable ones"
            )
        if name in places:
            return f"tensors {places[name]} and {place} have the same name, {name!r}"
        places[name] = place
    return None
