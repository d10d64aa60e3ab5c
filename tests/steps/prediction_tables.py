"""The table `predictions` as the service fills it, from a frame."""

from typing import Any

import pandas as pd
import pyarrow as pa

from training.contract.model_spec import ModelSpec
from training.domain.predictions import event_type, prediction_schema


def prediction_table(spec: ModelSpec, rows: pd.DataFrame, **given: Any) -> pa.Table:
    """`rows` have the event columns and `score`; further columns of the log, here or in `given`, where they matter."""
    schema = prediction_schema(event_type(spec))
    rows = rows.assign(**given)
    time = rows[spec.source.events.time_column]
    plain = {
        "prediction_id": [f"p{i:05d}" for i in range(len(rows))],
        "predicted_at": time,
        "day": time.dt.date,
        "model_version": 1,
        "model_digest": None,
        "role": "champion",
        "decision": "pass",
        "features_defaulted": False,
        "feature_timestamp": time,
        "latency_seconds": 0.001,
        "replica": "test",
        "outputs": [[("score", float(score))] for score in rows["score"]],
        "features": None,
    }
    ours = pd.DataFrame({name: rows.get(name, plain[name]) for name in plain}, index=rows.index)
    ours["day"] = plain["day"]
    events = pa.Table.from_pandas(rows[list(spec.request_columns)], preserve_index=False).to_pylist()
    ours["event"] = pd.Series(events, index=rows.index, dtype=object)
    return pa.Table.from_pandas(ours[schema.names], schema=schema, preserve_index=False)
