"""Rows for the prediction log, and what became of them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from serving.segments import FEATURE_NAMES, FEATURE_VALUES
from training.adapters.lake import PREDICTIONS, Lake
from training.contract.model_spec import ModelSpec

NOW = datetime(2026, 1, 5, 12, 30, 0, 5, tzinfo=UTC)


def row(number: int) -> dict[str, Any]:
    """As the service logs it."""
    head = {"prediction_id": f"p{number}", "predicted_at": NOW, "transaction_id": number, "event_time": NOW}
    tail = {"score": 0.25, "flagged": False, "model_version": 3, FEATURE_NAMES: '["a", "b \\"c"]'}
    tail |= {FEATURE_VALUES: np.array([number + 0.1, 1e-7], np.float32)}
    tail |= {"features_defaulted": False, "feature_timestamp": NOW, "slot": "champion", "latency_seconds": 0.001}
    return {**head, "customer_id": 7, "terminal_id": 11, "amount": 2.5, **tail, "replica": "r"}


def stored(number: int) -> dict[str, Any]:
    """As it arrives in the lake, its features read as JSON."""
    logged = row(number)
    names, values = json.loads(logged.pop(FEATURE_NAMES)), logged.pop(FEATURE_VALUES).tolist()
    return logged | {"features": dict(zip(names, values, strict=True)), "day": NOW.date()}


def make_log(folder: Path, lake: Lake, spec: ModelSpec) -> PredictionLog:
    log = PredictionLog(folder / "spool", lake, spec, "r", Metrics(CollectorRegistry()))
    log.start()
    return log


def shipped(lake: Lake) -> list[int]:
    if lake.version(PREDICTIONS) is None:
        return []
    return sorted(lake.scan(PREDICTIONS).to_table(columns=["transaction_id"])["transaction_id"].to_pylist())
