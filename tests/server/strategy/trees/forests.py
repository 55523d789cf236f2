"""Models as XGBoost 3.2 saves them: trees of one split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

__all__ = ["stump", "stumps"]

NO_PARENT = 2**31 - 1


def stump(weight: float, number: int = 0) -> dict[str, Any]:
    """A tree: minus the weight if feature 0 is below 0.5, else plus."""
    return {
        "base_weights": [0.0, -weight, weight],
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": [0, 0, 0],
        "id": number,
        "left_children": [1, -1, -1],
        "loss_changes": [1.0, 0.0, 0.0],
        "parents": [NO_PARENT, 0, 0],
        "right_children": [2, -1, -1],
        "split_conditions": [0.5, -weight, weight],
        "split_indices": [0, 0, 0],
        "split_type": [0, 0, 0],
        "sum_hessian": [2.0, 1.0, 1.0],
        "tree_param": {
            "num_deleted": "0",
            "num_feature": "4",
            "num_nodes": "3",
            "size_leaf_vector": "1",
        },
    }


def stumps(
    *weights: float, classes: Sequence[int] = (), per_round: int = 1, features: int = 4
) -> bytes:
    """A model of one stump for each weight."""
    count = len(weights)
    document = {
        "learner": {
            "attributes": {},
            "feature_names": [],
            "feature_types": [],
            "gradient_booster": {
                "model": {
                    "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
                    "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(count)},
                    "iteration_indptr": list(range(0, count + 1, per_round)),
                    "tree_info": list(classes) or [0] * count,
                    "trees": [stump(weight, number) for number, weight in enumerate(weights)],
                },
                "name": "gbtree",
            },
            "learner_model_param": {
                "base_score": "[5E-1]",
                "boost_from_average": "1",
                "num_class": str(len(set(classes))),
                "num_feature": str(features),
                "num_target": "1",
            },
            "objective": {"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}},
        },
        "version": [3, 2, 0],
    }
    return json.dumps(document).encode()
