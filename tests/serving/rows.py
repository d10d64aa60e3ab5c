"""Rows for the prediction log, and what became of them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from training.adapters.lake import PREDICTIONS, Lake
from training.contract.model_spec import ModelSpec

NOW = datetime(2026, 1, 5, 12, 30, 0, 5, tzinfo=UTC)


def row(number: int) -> dict[str, Any]:
    head = {"prediction_id": f"p{number}", "predicted_at": NOW, "transaction_id": number, "event_time": NOW}
    tail = {"score": 0.25, "flagged": False, "model_version": 3, "features": "{}"}
    tail |= {"features_defaulted": False, "feature_timestamp": NOW, "slot": "champion", "latency_seconds": 0.001}
    place = {"replica": "r", "day": NOW.date()}
    return {**head, "customer_id": 7, "terminal_id": 11, "amount": 2.5, **tail, **place}


def make_log(folder: Path, lake: Lake, spec: ModelSpec) -> PredictionLog:
    log = PredictionLog(folder / "spool", lake, spec, "r", Metrics(CollectorRegistry()))
    log.start()
    return log


def shipped(lake: Lake) -> list[int]:
    if lake.version(PREDICTIONS) is None:
        return []
    return sorted(lake.scan(PREDICTIONS).to_table(columns=["transaction_id"])["transaction_id"].to_pylist())
