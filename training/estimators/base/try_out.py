"""Try an estimator on a few made rows, before anything is trained on it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from training.contract.artifact import ONNX_INPUT, ONNX_OUTPUT
from training.contract.errors import ConfigError, StepError
from training.contract.feature_definitions import FeatureColumn
from training.contract.names import Target
from training.domain.parity import made_rows, prove_parity
from training.estimators.base import Estimator, TrainingData

_COLUMNS = (
    FeatureColumn(name="a_number"),
    FeatureColumn(name="another_number"),
    FeatureColumn(name="a_number_that_may_be_missing", may_be_missing=True),
    FeatureColumn(name="a_category", categories=("a", "b", "c"), may_be_missing=True),
)


def try_out(name: str, estimator: Estimator, target: Target, parameters: Mapping[str, Any]) -> None:
    """Fit, export, and compare the outputs of 200 made rows. Raises ConfigError that says which of these failed."""
    data = _made(target)
    try:
        fitted = estimator.fit(data, parameters, 0)
        content = fitted.onnx()
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        rows = np.concatenate([data.features, made_rows(data.features, data.columns)])
        found = session.run([ONNX_OUTPUT], {ONNX_INPUT: rows})[0]
        prove_parity(fitted.outputs(rows), found, target)
    except StepError as error:
        raise ConfigError(f"{name} fails on made rows: {error.message}", hint=error.hint) from error
    except Exception as error:
        problem = f"{name} fails on made rows: {type(error).__name__}: {error}"
        raise ConfigError(problem, hint="Correct the estimator, or leave it out.") from error


def _made(target: Target, rows: int = 200) -> TrainingData:
    random = np.random.default_rng(0)
    numbers = random.normal(size=(rows, 3))
    numbers[::5, 2] = np.nan
    category = random.integers(0, 4, rows).astype(float)
    category[::7] = np.nan
    z = numbers[:, 0] + numbers[:, 1] ** 2 + random.normal(size=rows)
    labels = {"binary": (z > 1).astype(np.int64), "classes": np.digitize(z, [0.0, 1.5]), "number": z}[target]
    return TrainingData(np.column_stack([numbers, category]).astype(np.float32), labels, _COLUMNS, target)
