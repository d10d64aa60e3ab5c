"""A tiny served artifact: the score is the sum of two features."""

from datetime import date
from pathlib import Path

import numpy as np
from onnx import helper, numpy_helper

from training.adapters.onnx_model import digest, write_artifact
from training.contract.artifact import ONNX_INPUT, ONNX_OUTPUT, ArtifactMetadata, Golden
from training.contract.base import Days
from training.estimators.base.graph import serialise

WEEK = Days(start=date(2026, 1, 5), end=date(2026, 1, 12))


def make_artifact(folder: Path, model: str = "tiny", golden_score: float = 3.0) -> ArtifactMetadata:
    """model.onnx and metadata.json in `folder`."""
    axis = numpy_helper.from_array(np.array([1], dtype=np.int64), "axis")
    node = helper.make_node("ReduceSum", [ONNX_INPUT, "axis"], [ONNX_OUTPUT], keepdims=0)
    content = serialise([node], [axis], 2)
    metadata = ArtifactMetadata(
        model=model,
        estimator="logistic_regression",
        digest=digest(content),
        feature_service=model,
        feature_names=["amount", "night"],
        threshold=0.5,
        golden=Golden(features=[[1.0, 2.0]], scores=[golden_score]),
        dataset_id="d",
        as_of=date(2026, 1, 26),
        train_days=WEEK,
        holdout_days=WEEK,
        table_versions={"events": 1},
        holdout_metrics={"roc_auc": 0.9},
        parameters={},
        config_hash="c",
    )
    write_artifact(folder, content, metadata)
    return metadata
