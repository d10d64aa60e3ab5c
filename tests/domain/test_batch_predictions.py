"""The rows of batch predictions: what the service would have logged, for each kind of task."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from testing.task_kinds import CLASSES
from tests.adapters.tiny_artifact import make_artifact
from training.contract.model_spec import ModelSpec
from training.domain.batch_predictions import BatchPredictions, batch_replica, prediction_ids
from training.domain.task_kind import ServedTask
from training.domain.tasks.binary import ServedBinary
from training.domain.tasks.multiclass import ServedMulticlass
from training.domain.tasks.regression import ServedRegression

NOW = datetime(2026, 1, 5, 12, 30, tzinfo=UTC)
RANDOM = np.random.default_rng(0)
CLASS_SCORES = RANDOM.dirichlet((1, 1, 1), 50).astype(np.float32)


@pytest.mark.parametrize(
    ("task", "scores"),
    [
        (ServedBinary(0.5), np.r_[np.float32(0.5), RANDOM.random(49, np.float32)]),
        (ServedMulticlass(CLASSES, reject_below=0.6), CLASS_SCORES),
        (ServedMulticlass(CLASSES, None, ("act", "wait"), ((0.0, 1.0), (1.0, 0.0), (0.2, 0.3))), CLASS_SCORES),
        (ServedRegression(30.0, 0.9), RANDOM.normal(0, 100, 50).astype(np.float32)),
        (ServedRegression(), RANDOM.normal(0, 100, 50).astype(np.float32)),
    ],
)
def test_decisions_and_outputs_are_those_of_the_service(
    task: ServedTask, scores: np.ndarray, spec: ModelSpec, tmp_path
) -> None:
    metadata = make_artifact(tmp_path).model_copy(update={"outputs": list(task.output_names)})
    ids = np.arange(50)
    events = pa.table(
        {
            "transaction_id": ids,
            "event_time": pa.repeat(pa.scalar(NOW, pa.timestamp("us", "UTC")), 50),
            "customer_id": ids,
            "terminal_id": ids,
            "amount": ids * 1.5,
        }
    )
    values = RANDOM.random((50, 2), np.float32)
    values[7, 1] = np.nan
    stamps = pa.array([None if i == 3 else NOW for i in range(50)], pa.timestamp("us", "UTC"))
    rows = BatchPredictions(spec, 3, metadata, task, "batch")
    table = pa.Table.from_batches(rows.rows(events, values, stamps, scores, NOW)).to_pylist()
    assert [row["decision"] for row in table] == task.decided(scores)
    assert [[value for _, value in row["outputs"]] for row in table] == task.logged(scores)
    assert [name for name, _ in table[0]["outputs"]] == list(task.output_names)
    assert table[7]["features"] == [("amount", pytest.approx(values[7, 0])), ("night", None)]
    assert [row["features_defaulted"] for row in table] == [i == 3 for i in range(50)]
    assert table[4]["event"] == {
        "transaction_id": 4,
        "event_time": NOW,
        "customer_id": 4,
        "terminal_id": 4,
        "amount": 6.0,
    }


def test_more_rows_than_are_made_at_once(spec: ModelSpec, tmp_path) -> None:
    metadata, n = make_artifact(tmp_path).model_copy(update={"outputs": ["score"]}), 45_001
    ids, times = np.arange(n), pa.repeat(pa.scalar(NOW, pa.timestamp("us", "UTC")), n)
    columns = {"transaction_id": ids, "event_time": times, "customer_id": ids, "terminal_id": ids, "amount": ids * 1.0}
    values, scores = RANDOM.random((n, 2), np.float32), RANDOM.random(n, np.float32)
    rows = BatchPredictions(spec, 3, metadata, ServedBinary(0.5), batch_replica("run"))
    table = pa.Table.from_batches(rows.rows(pa.table(columns), values, times, scores, NOW))
    assert table["event"].combine_chunks().field("transaction_id").to_pylist() == ids.tolist()
    assert [row[0][1] for row in table["outputs"].to_pylist()] == scores.astype(float).tolist()
    assert [row[1][1] for row in table["features"].to_pylist()] == values[:, 1].astype(float).tolist()


def test_an_id_is_made_of_model_version_and_event() -> None:
    assert prediction_ids("m", 2, pa.array([1, 2])).to_pylist() == ["m:2:1", "m:2:2"]
    assert prediction_ids("m", 2, pa.array(["a:b", ""])).to_pylist() == ["m:2:a:b", "m:2:"]
