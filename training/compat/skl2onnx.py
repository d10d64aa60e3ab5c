"""skl2onnx 1.20: corrections to the trees that it converts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from skl2onnx.common import tree_ensemble


@contextmanager
def corrected_tree_nodes(round_threshold: Callable[[float], float]) -> Iterator[None]:
    """Within the block, skl2onnx writes tree nodes that ONNX Runtime evaluates like scikit-learn.

    - `round_threshold` makes a float32 of each threshold (float64). skl2onnx rounds down for forests, but rounds the
      thresholds of histogram trees to the nearest (onnx/sklearn-onnx#1192).
    - skl2onnx passes NumPy booleans (a histogram tree's `missing_go_to_left`) where onnx 1.23 wants integers: "Expected
      an int, got a boolean".

    `add_node` of skl2onnx.common.tree_ensemble is private: every converter of trees calls it for each node.
    """
    original = tree_ensemble.add_node

    def add_node(
        pairs: Any, is_classifier: Any, tree: Any, tree_weight: Any, node: Any, feature: Any, mode: str, value: Any,
        *args: Any, nodes_missing_value_tracks_true: Any = 0, **kwargs: Any,
    ) -> None:  # fmt: skip
        if mode == "BRANCH_LEQ":
            value = round_threshold(float(value))
        elif mode != "LEAF":
            raise NotImplementedError(f"A tree node of mode {mode}: its threshold may have to be rounded up")
        option = int(nodes_missing_value_tracks_true)
        which = (pairs, is_classifier, tree, tree_weight, node, feature, mode, value)
        original(*which, *args, nodes_missing_value_tracks_true=option, **kwargs)

    tree_ensemble.add_node = add_node
    try:
        yield
    finally:
        tree_ensemble.add_node = original
