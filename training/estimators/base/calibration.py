"""Calibration of a model's probabilities, inside its graph.

The model is fitted on the first part of the training rows. On the last part, which it has not seen, its probabilities
are compared with what came true.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import onnx
from onnx import helper, numpy_helper
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from training.contract.artifact import ONNX_OUTPUT
from training.contract.errors import ConfigError, DataContractError
from training.estimators.base import Estimator, Fitted
from training.estimators.base.checkpoint import NO_CHECKPOINT, Checkpoint
from training.estimators.base.data import TrainingData
from training.estimators.base.graph import serialise

#: The last part of the training rows, which calibrates.
SHARE = 0.2
#: Probabilities are at least this far from 0 and 1, so that their logits are finite.
_EDGE = np.float32(1e-6)
#: Groups of equal size, of which isotonic calibration takes the means. Single rows would make steps so steep that the
#: rounding of a probability decided about its calibrated value.
_GROUPS = 50
#: The least relative distance of two groups, for the same reason.
_APART = 1e-3

#: How much the shares of the classes count beside the curves, so that no sum to divide by is near 0.
_PRIOR = np.float32(0.01)

_RAW = "uncalibrated_scores"

Graph = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]


class Curve(Protocol):
    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities [n]."""
        ...

    def graph(self, raw: str, output: str, prefix: str = "") -> Graph:
        """Nodes from the probabilities `raw` [n] to `output` [n], and their constants. Other names have `prefix`."""
        ...


@dataclass(frozen=True)
class Sigmoid:
    """sigmoid(slope · logit(p) + intercept). Platt, Probabilistic Outputs for Support Vector Machines, 1999, with the
    logits as scores.
    """

    slope: float
    intercept: float

    @classmethod
    def fit(cls, probabilities: np.ndarray, labels: np.ndarray) -> "Sigmoid":
        model = LogisticRegression(C=1e6, max_iter=1000).fit(_logits(probabilities)[:, None], labels)
        return cls(float(model.coef_[0, 0]), float(model.intercept_[0]))

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-(self.slope * _logits(probabilities) + self.intercept))))

    def graph(self, raw: str, output: str, prefix: str = "") -> Graph:
        values = {"low": _EDGE, "high": 1 - _EDGE, "one": 1.0, "slope": self.slope, "intercept": self.intercept}
        steps = [
            ("Clip", [raw, "calibration_low", "calibration_high"], "clipped"),
            ("Sub", ["calibration_one", "clipped"], "opposite"),
            ("Div", ["clipped", "opposite"], "odds"),
            ("Log", ["odds"], "raw_logits"),
            ("Mul", ["raw_logits", "calibration_slope"], "sloped"),
            ("Add", ["sloped", "calibration_intercept"], "shifted"),
            ("Sigmoid", ["shifted"], output),
        ]
        constants = {name: np.array(value, np.float32) for name, value in values.items()}
        return _graph(steps, constants, {raw, output}, prefix)


@dataclass(frozen=True)
class Isotonic:
    """A curve that never falls, straight between its points (x, y), and level outside them."""

    x: np.ndarray
    y: np.ndarray

    @classmethod
    def fit(cls, probabilities: np.ndarray, labels: np.ndarray) -> "Isotonic":
        order = np.argsort(probabilities, kind="stable")
        groups = np.array_split(order, min(_GROUPS, len(order)))
        x = np.array([probabilities[group].mean() for group in groups])
        y = np.array([labels[group].mean() for group in groups])
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(x, y, [len(group) for group in groups])
        kept = [0]
        for i in range(1, len(x)):
            if x[i] > x[kept[-1]] * (1 + _APART):
                kept.append(i)
        points = x[kept].astype(np.float32)
        return cls(points, np.asarray(fitted.predict(x[kept]), np.float32))

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        return np.interp(probabilities, self.x, self.y)

    def graph(self, raw: str, output: str, prefix: str = "") -> Graph:
        """y of the first point, plus the part of each piece's rise that lies below p."""
        widths = np.diff(self.x)
        slopes = np.divide(np.diff(self.y), widths, out=np.zeros_like(widths), where=widths > 0)
        constants = {
            "column": np.array([1], np.int64),
            "starts": self.x[:-1],
            "widths": widths,
            "zero": np.array(0, np.float32),
            "slopes": slopes[:, None],
            "first": self.y[:1],
        }
        steps = [
            ("Unsqueeze", [raw, "calibration_column"], "raw_column"),
            ("Sub", ["raw_column", "calibration_starts"], "beyond"),
            ("Max", ["beyond", "calibration_zero"], "positive_part"),
            ("Min", ["positive_part", "calibration_widths"], "within"),
            ("MatMul", ["within", "calibration_slopes"], "rises"),
            ("Squeeze", ["rises", "calibration_column"], "rise"),
            ("Add", ["rise", "calibration_first"], output),
        ]
        return _graph(steps, constants, {raw, output}, prefix)


@dataclass(frozen=True)
class OneVersusRest:
    """A curve for each class. What they give is divided by its sum.

    Source: Zadrozny & Elkan, Transforming Classifier Scores into Accurate Multiclass Probability Estimates, KDD 2002.
    The share of each class among the calibrating rows is added with the weight _PRIOR, for rows that no curve expects.
    """

    curves: tuple[Curve, ...]
    #: float32 [k], which sum to 1.
    shares: np.ndarray

    @classmethod
    def fit(cls, kind: type[Sigmoid | Isotonic], probabilities: np.ndarray, labels: np.ndarray) -> "OneVersusRest":
        classes = range(probabilities.shape[1])
        curves = tuple(kind.fit(probabilities[:, k], (labels == k).astype(np.int64)) for k in classes)
        return cls(curves, np.array([np.mean(labels == k) for k in classes], np.float32))

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        raised = np.column_stack([curve(probabilities[:, k]) for k, curve in enumerate(self.curves)])
        raised = raised + _PRIOR * self.shares
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))

    def graph(self, raw: str, output: str, prefix: str = "") -> Graph:
        constants: dict[str, np.ndarray] = {"axis": np.array([1], np.int64), "prior": _PRIOR * self.shares}
        constants |= {f"place_{k}": np.array(k, np.int64) for k in range(len(self.curves))}
        columns = [f"column_{k}" for k in range(len(self.curves))]
        curved: list[onnx.NodeProto] = []
        stored: list[onnx.TensorProto] = []
        before: list[Step] = []
        after: list[Step] = []
        for k, curve in enumerate(self.curves):
            before.append(("Gather", [raw, f"calibration_place_{k}"], f"raw_{k}"))
            nodes, tensors = curve.graph(f"{prefix}raw_{k}", f"{prefix}curved_{k}", f"{prefix}class_{k}_")
            curved += nodes
            stored += tensors
            after.append(("Unsqueeze", [f"curved_{k}", "calibration_axis"], columns[k]))
        after += [
            ("Concat", columns, "curved"),
            ("Add", ["curved", "calibration_prior"], "raised"),
            ("ReduceSum", ["raised", "calibration_axis"], "total"),
            ("Div", ["raised", "total"], output),
        ]
        outside = {raw, output}
        first, tensors = _graph(before, constants, outside, prefix)
        last, _ = _graph(after, {}, outside, prefix)
        return [*first, *curved, *last], [*tensors, *stored]


@dataclass(frozen=True)
class CalibratedFitted:
    """A fitted model whose probabilities go through a curve, or through one for each of its `classes`."""

    fitted: Fitted
    curve: Curve
    classes: int | None = None

    @property
    def device(self) -> str:
        return self.fitted.device

    def outputs(self, features: np.ndarray) -> np.ndarray:
        return self.curve(self.fitted.outputs(features))

    def onnx(self) -> bytes:
        graph = onnx.load_from_string(self.fitted.onnx()).graph
        for node in graph.node:
            node.output[:] = [_RAW if name == ONNX_OUTPUT else name for name in node.output]
        nodes, constants = self.curve.graph(_RAW, ONNX_OUTPUT)
        columns = graph.input[0].type.tensor_type.shape.dim[1].dim_value
        return serialise([*graph.node, *nodes], [*graph.initializer, *constants], columns, self.classes)


def fit_calibrated(
    estimator: Estimator,
    data: TrainingData,
    parameters: Mapping[str, Any],
    seed: int,
    method: Literal["sigmoid", "isotonic"],
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> CalibratedFitted:
    """Fit `estimator` on the first rows of `data`, and its calibration on the last ones.

    Raises ConfigError for the target `number`, DataContractError when a label is missing in one of the two parts.
    """
    if data.target == "number":
        problem = "training.calibration is for probabilities, and a regression has none"
        raise ConfigError(problem, hint="Write `calibration: none`.")
    split = len(data.labels) - max(1, int(len(data.labels) * SHARE))
    first, last = data.first(split), data.labels[split:]
    if min(len(np.unique(first.labels)), len(np.unique(last))) < data.classes:
        problem = f"The first {split} or the last {len(last)} training rows do not have all {data.classes} labels"
        raise DataContractError(problem, hint="Train on a longer window, or write `calibration: none`.")
    fitted = estimator.fit(first, parameters, seed, checkpoint)
    probabilities = np.asarray(fitted.outputs(data.features[split:]), np.float64)
    kind = Sigmoid if method == "sigmoid" else Isotonic
    if data.target == "binary":
        return CalibratedFitted(fitted, kind.fit(probabilities, last))
    return CalibratedFitted(fitted, OneVersusRest.fit(kind, probabilities, last), data.classes)


#: An operator, its inputs and its output.
Step = tuple[str, list[str], str]


def _graph(steps: list[Step], constants: Mapping[str, np.ndarray], outside: set[str], prefix: str) -> Graph:
    """The nodes of `steps`, and the `constants`, which steps name with `calibration_` before. All names but those of
    `outside` get the `prefix`."""

    def name_of(name: str) -> str:
        return name if name in outside else f"{prefix}{name}"

    nodes = []
    for operator, inputs, output in steps:
        made = helper.make_node(operator, list(map(name_of, inputs)), [name_of(output)])
        if operator in ("Gather", "Concat"):
            made.attribute.append(helper.make_attribute("axis", 1))
        nodes.append(made)
    return nodes, [numpy_helper.from_array(array, f"{prefix}calibration_{name}") for name, array in constants.items()]


def _logits(probabilities: np.ndarray) -> np.ndarray:
    clipped = np.clip(probabilities.astype(np.float64), _EDGE, 1 - _EDGE)
    return np.log(clipped / (1 - clipped))
