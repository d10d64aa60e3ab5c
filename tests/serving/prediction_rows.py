"""Rows for the prediction log, and what became of them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from prometheus_client import CollectorRegistry

from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from serving.segments import EventLayout
from serving.spool import Line
from training.adapters.lake import PREDICTIONS, Lake
from training.contract.model_spec import ModelSpec
from training.contract.predictions import LoggedRows

NOW = datetime(2026, 1, 5, 12, 30, 0, 5, tzinfo=UTC)


#: What the rows of a line share.
SHARED = ("model_version", "model_digest", "role", "replica", "output_names", "feature_names")


def row(number: int) -> dict[str, Any]:
    """One row of a line."""
    event = {"transaction_id": number, "event_time": NOW, "customer_id": 7, "terminal_id": 11, "amount": 2.5}
    return {
        "prediction_id": f"p{number}",
        "predicted_at": NOW,
        "model_version": 3,
        "model_digest": "d",
        "role": "champion",
        "decision": "pass",
        "features_defaulted": False,
        "feature_timestamp": NOW,
        "latency_seconds": 0.001,
        "replica": "r",
        "output_names": '["score"]',
        "output_values": [0.25],
        "event": event,
        "feature_names": '["a", "b \\"c"]',
        "feature_values": np.array([number + 0.1, 1e-7], np.float32),
    }


def together(*rows: dict[str, Any]) -> LoggedRows:
    """`rows` as the service logs them: column by column."""
    first: Any = {name: rows[0][name] for name in SHARED}
    assert all({name: each[name] for name in SHARED} == first for each in rows)
    columns: dict[str, Any] = {name: [each[name] for each in rows] for name in rows[0] if name not in SHARED}
    for name in ("output_values", "feature_values"):
        columns[name] = [value for values in columns[name] for value in values]
    columns["event"] = {name: [each["event"][name] for each in rows] for name in rows[0]["event"]}
    return first | columns


def older_line(row: dict[str, Any]) -> Line:
    """A line of one row, as services wrote them before: a `row`, or a `flat_row`."""
    return Line(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY), 1)


def stored(number: int) -> dict[str, Any]:
    """As it arrives in the lake."""
    logged = row(number)
    for name, (names, values) in {
        "outputs": ("output_names", "output_values"),
        "features": ("feature_names", "feature_values"),
    }.items():
        keys, numbers = json.loads(logged.pop(names)), logged.pop(values)
        logged[name] = list(zip(keys, map(float, numbers), strict=True))
    return logged | {"day": NOW.date()}


def stored_from_flat(number: int) -> dict[str, Any]:
    """As a `flat_row` arrives in the lake. It does not say which artifact made it."""
    return stored(number) | {"model_digest": None}


def flat_row(number: int) -> dict[str, Any]:
    """As services logged it before event columns had a place of their own."""
    now = row(number)
    head = {"prediction_id": f"p{number}", "predicted_at": NOW, **now["event"]}
    tail = {"score": 0.25, "flagged": False, "model_version": 3, "feature_names": now["feature_names"]}
    tail |= {"feature_values": now["feature_values"], "features_defaulted": False, "feature_timestamp": NOW}
    return {**head, **tail, "slot": "champion", "latency_seconds": 0.001, "replica": "r"}


def flat_table(*numbers: int) -> pa.Table:
    """Rows of the lake's table `predictions` from that time."""
    rows = []
    for number in numbers:
        old = flat_row(number)
        names, values = json.loads(old.pop("feature_names")), old.pop("feature_values").tolist()
        rows.append(old | {"features": json.dumps(dict(zip(names, values, strict=True))), "day": NOW.date()})
    table = pa.Table.from_pylist(rows)
    times = {name: pa.timestamp("us", "UTC") for name in ("predicted_at", "event_time", "feature_timestamp")}
    return table.cast(pa.schema([pa.field(f.name, times.get(f.name, f.type)) for f in table.schema]))


def make_log(
    folder: Path, lake: Lake, spec: ModelSpec, replica: str = "r", registry: CollectorRegistry | None = None
) -> PredictionLog:
    metrics = Metrics(registry or CollectorRegistry()).of(spec.name)
    log = PredictionLog(folder / "spool", lake, EventLayout.of(spec), replica, metrics)
    log.start()
    return log


def logged_rows(lake: Lake) -> list[dict[str, Any]]:
    """The rows of the table; none before the first of them is shipped."""
    return [] if lake.version(PREDICTIONS) is None else lake.scan(PREDICTIONS).to_table().to_pylist()


def shipped(lake: Lake) -> list[int]:
    """The transaction ids in the table, sorted."""
    return sorted(row["event"]["transaction_id"] for row in logged_rows(lake))
