"""Some of a model's tensors, chosen by name: which they are, and what a reply holds of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from flmq.common.errors import UsageError
from flmq.common.tensor_names import names_problem
from flmq.common.typing import Parameters
from flmq.wire import FileParameters

__all__ = ["NamedSubset", "NoSuchTensors", "part_of"]


class NoSuchTensors(UsageError):
    """Tensors are chosen by names that the model has not."""


@dataclass(frozen=True, slots=True)
class NamedSubset:
    """The tensors whose names match one of ``patterns``, or with ``others`` all but those.

    Patterns are those of a shell: ``"*.lora_*"``, ``"head.*"``, ``"layer?.bias"``.
    """

    patterns: tuple[str, ...]
    others: bool = False

    def places(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the indexes of these tensors in a model with these ``names``.

        Raises:
            NoSuchTensors: a pattern matches none, or no tensor is left.
        """
        if not names:
            raise NoSuchTensors(
                f"{self} are chosen by name, and the model has no names: make it with "
                "ndarrays_to_parameters(arrays, names=...)"
            )
        matched: set[int] = set()
        for pattern in self.patterns:
            found = [i for i, name in enumerate(names) if fnmatchcase(name, pattern)]
            if not found:
                raise NoSuchTensors(
                    f"no tensor of the model is called {pattern!r}: they are {_listed(names)}"
                )
            matched.update(found)
        places = tuple(i for i in range(len(names)) if (i in matched) is not self.others)
        if not places:
            raise NoSuchTensors(f"{self} are none of the model's tensors: nothing would be trained")
        return places

    def __str__(self) -> str:
        """Return the patterns as text."""
        patterns = ", ".join(map(repr, self.patterns))
        return f"all tensors but {patterns}" if self.others else f"the tensors {patterns}"


def part_of(
    parameters: Parameters, places: Sequence[int], names: Sequence[str]
) -> Parameters | str:
    """Return the tensors at ``places`` of a model with these ``names``, as ``parameters`` has them.

    ``parameters`` are the whole model, or these tensors alone: named, in any order and possibly
    with others; or without names, in the model's order. Otherwise return what is wrong. Nothing is
    copied, and what is in a file stays there.
    """
    wanted = tuple(names[place] for place in places)
    at_hand = parameters if isinstance(parameters, FileParameters) else None
    is_file = at_hand is not None and at_hand.untouched
    count = len(at_hand.ref.lengths) if at_hand and is_file else len(parameters.tensors)
    if (problem := names_problem(parameters.names, count)) is not None:
        return f"parameters with {problem}"
    chosen: Sequence[int]
    if parameters.names and tuple(parameters.names) != tuple(names):
        where = {name: place for place, name in enumerate(parameters.names)}
        if lacking := [name for name in wanted if name not in where]:
            return f"tensor {_listed(lacking)} did not come: return those that were trained"
        chosen = [where[name] for name in wanted]
    elif count == len(names):
        chosen = places
    elif count == len(places):
        chosen = range(count)
    else:
        return (
            f"{count} tensors came, and the model has {len(names)}, of which {len(places)} are "
            "trained: return all of them or those, in their order"
        )
    if at_hand is not None and is_file:
        return _PartOfFile(at_hand, chosen, wanted)
    tensors = parameters.tensors
    return Parameters([tensors[place] for place in chosen], parameters.tensor_type, wanted)


class _PartOfFile(FileParameters):
    """Some tensors of parameters in a file; holds on to these, and so to the file."""

    def __init__(
        self, whole: FileParameters, places: Sequence[int], names: tuple[str, ...]
    ) -> None:
        lengths = tuple(whole.ref.lengths[place] for place in places)
        super().__init__(whole.path, replace(whole.ref, lengths=lengths, names=names))
        self._whole, self._places = whole, places

    @property
    def tensors(self) -> list[bytes]:
        if self._own is None:
            mapped = self._whole.tensors
            return [mapped[place] for place in self._places]
        return self._own

    @tensors.setter
    def tensors(self, tensors: list[bytes]) -> None:
        self._own = tensors

    def tensor(self, index: int) -> memoryview:
        return self._whole.tensor(self._places[index])


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
