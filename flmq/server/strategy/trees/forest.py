"""XGBoost's JSON model: read from a client with distrust, and joined with others.

XGBoost, "Introduction to Model IO", and ``save_raw("json")`` of its versions 2 and 3. Of a model,
under ``learner.gradient_booster.model``, the trees are ``trees``; ``tree_info`` has the output
(class) of each, ``iteration_indptr`` at which tree each round of boosting begins.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flmq.common.errors import AggregationError

__all__ = ["Forest", "InvalidTrees", "joined"]

_NO_PARENT = 2**31 - 1
_NODE_LISTS = ("left_children", "right_children", "parents", "split_indices", "split_conditions")


class InvalidTrees(AggregationError):
    """Bytes are not a model of XGBoost in JSON, or not one that fits the others."""


@dataclass(frozen=True, slots=True)
class Forest:
    """A model of XGBoost, checked: its trees can be appended to those of another."""

    document: dict[str, Any]

    @classmethod
    def read(cls, data: bytes | bytearray | memoryview) -> Forest:
        """Read what ``Booster.save_raw("json")`` wrote.

        Raises:
            InvalidTrees: something else, or trees in which XGBoost would go astray.
        """
        try:
            document = json.loads(bytes(data))
        except (ValueError, RecursionError) as error:
            raise InvalidTrees(
                f'not JSON ({error}): send what Booster.save_raw("json") returns'
            ) from error
        forest = cls(document)
        try:
            forest._check()
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise InvalidTrees(
                f"not a model of XGBoost 2 or later ({type(error).__name__}: {error}): send what "
                'Booster.save_raw("json") returns'
            ) from error
        return forest

    @property
    def model(self) -> dict[str, Any]:
        """The part that holds the trees."""
        model: dict[str, Any] = self.document["learner"]["gradient_booster"]["model"]
        return model

    @property
    def kind(self) -> tuple[str, ...]:
        """What models must agree on for their trees to mean the same."""
        learner = self.document["learner"]
        sizes = learner["learner_model_param"]
        names = ("num_feature", "num_class", "num_target")
        return learner["objective"]["name"], *(str(sizes.get(name, "")) for name in names)

    def _check(self) -> None:
        model, (_, num_feature, *_) = self.model, self.kind
        trees, starts = model["trees"], model["iteration_indptr"]
        count = len(trees)
        if self.document["learner"]["gradient_booster"]["name"] != "gbtree":
            raise ValueError("its booster is not gbtree")
        if int(model["gbtree_model_param"]["num_trees"]) != count:
            raise ValueError(f"num_trees is not {count}")
        if len(model["tree_info"]) != count or not _all_below(model["tree_info"], max(count, 1)):
            raise ValueError("tree_info does not have an output for each tree")
        if starts[0] != 0 or starts[-1] != count or starts != sorted(starts):
            raise ValueError(f"iteration_indptr does not go from 0 to {count}")
        if not _all_below(starts, count + 1):
            raise ValueError("iteration_indptr does not hold positions")
        for number, tree in enumerate(trees):
            if not _is_tree(tree, int(num_feature)):
                raise ValueError(f"trees[{number}] is no tree")

    def append(self, other: Forest) -> None:
        """Append the trees of ``other``, which are changed: each gets its new number as id.

        Raises:
            InvalidTrees: they predict something else.
        """
        if self.kind != other.kind:
            raise InvalidTrees(
                f"its objective, features, classes and targets are {other.kind}, those of the "
                f"others {self.kind}: their trees do not add up"
            )
        mine, theirs = self.model, other.model
        first = len(mine["trees"])
        for number, tree in enumerate(theirs["trees"], first):
            tree["id"] = number
        mine["trees"] += theirs["trees"]
        mine["tree_info"] += theirs["tree_info"]
        mine["iteration_indptr"] += [first + start for start in theirs["iteration_indptr"][1:]]
        mine["gbtree_model_param"]["num_trees"] = str(len(mine["trees"]))

    def write(self) -> bytes:
        """Return the model as JSON, which XGBoost loads."""
        return json.dumps(self.document).encode()


def joined(models: Iterable[tuple[str, bytes]]) -> bytes:
    """Return one model with the trees of all, in their order; each comes with whose it is.

    What is not trees (the base score, for instance) is the first one's. A single model is returned
    as it came.

    Raises:
        InvalidTrees: one cannot be read, or does not fit the first; says whose.
    """
    forest, alone = None, b""
    for name, data in models:
        try:
            if forest is None:
                forest, alone = Forest.read(data), bytes(data)
            else:
                forest.append(Forest.read(data))
                alone = b""
        except InvalidTrees as error:
            raise InvalidTrees(f"the trees of {name}: {error}") from error
    if forest is None:
        raise InvalidTrees("there are no trees to collect")
    return alone or forest.write()


def _all_below(values: Any, bound: int) -> bool:
    return all(type(value) is int and 0 <= value < bound for value in values)


def _is_tree(tree: Any, num_feature: int) -> bool:
    """Return whether walks from the root end: each node has one parent, and the root none."""
    size = int(tree["tree_param"]["num_nodes"])
    left, right, parents, features, _ = lists = [tree[name] for name in _NODE_LISTS]
    if size < 1 or any(type(each) is not list or len(each) != size for each in lists):
        return False
    if parents[0] != _NO_PARENT or not _all_below(features, max(num_feature, 1)):
        return False
    for node, (one, other) in enumerate(zip(left, right, strict=True)):
        if one == other == -1:
            continue
        if one == other or not _all_below((one, other), size):
            return False
        if parents[one] != node or parents[other] != node:
            return False
    return True
