"""Batch scoring beside the real service: the same numbers for the same events, and one prediction for each."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from local.landing import land_table
from testing.http_client import http
from testing.pipeline import Pipeline
from testing.serving_stack import Stack, running_stack
from testing.waiting import eventually
from tests.steps.ingest_helpers import GENERATOR, MODEL, SOURCE, day
from training.adapters.lake import PREDICTIONS, Lake
from training.contract.model_spec import MODELS_DIR
from training.contract.predictions import read_predictions
from training.domain.partitions import partition_days

pytestmark = pytest.mark.ci

#: Added to the ids of events that the service is asked about and that never land.
TWIN = 10_000_000


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("batch")
    spec = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text()) | {"scoring": {"when": "new_data"}}
    (folder / "models").mkdir()
    (folder / "models" / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec))
    with running_stack(folder, models_dir=folder / "models") as running:
        yield running


def land(stack: Stack, number: int) -> None:
    """The partition of a day, its features in the lake and online."""
    pipeline, landing = Pipeline(stack.settings), Path(stack.settings.landing)
    rows = GENERATOR.events(day(number))
    pipeline.ingest(SOURCE, [land_table(rows, landing, SOURCE, "events", partition_days(str(day(number))))])
    versions = Lake(stack.settings.lake, SOURCE).versions(*stack.spec.source.tables)
    pipeline.step("materialize", source=SOURCE, table_versions=versions)


def asked(stack: Stack, events: pa.Table) -> list[dict[str, Any]]:
    """The answers of the service, once they are logged."""
    body = {"events": [{**row, "event_time": row["event_time"].isoformat()} for row in events.to_pylist()]}
    said = http.post(f"{stack.service.url}/predict_batch", content=json.dumps(body).encode(), timeout=60)
    assert said.status_code == 200, said.text
    answers = [dict(each) for each in read_predictions(said.content)]
    ids = pa.array([each["prediction_id"] for each in answers])
    lake = Lake(stack.settings.lake, SOURCE, MODEL)
    eventually(
        lambda: (
            lake.version(PREDICTIONS) is not None
            and pc.sum(pc.is_in(lake.scan(PREDICTIONS).to_table()["prediction_id"], ids)).as_py() == len(answers)
        )
    )
    return answers


def test_batch_and_service_agree_on_every_event_and_an_answered_event_is_left_out(stack: Stack) -> None:
    land(stack, 0)
    land(stack, 1)
    # Scores on both sides of the threshold.
    version = stack.register(bias=-0.9)
    stack.promote(version)
    events = GENERATOR.events(day(2)).slice(0, 150)
    place = events.column_names.index("transaction_id")
    # One entity that nobody knows: its features are defaults.
    customers = pc.if_else(
        pc.equal(events["transaction_id"], events["transaction_id"][3]), 9_999, events["customer_id"]
    )
    events = events.set_column(events.column_names.index("customer_id"), "customer_id", customers)
    twins = events.set_column(place, "transaction_id", pc.add(events["transaction_id"], TWIN))
    answers = asked(stack, twins)
    already = asked(stack, events.slice(0, 5))
    assert len(already) == 5

    pipeline, landing = Pipeline(stack.settings), Path(stack.settings.landing)
    path = land_table(events, landing, SOURCE, "events", partition_days(str(day(2))))
    pipeline.ingest(SOURCE, [path])
    result = pipeline.step("score", model=MODEL, partition=str(day(2)), run="parity")
    assert (result.rows, result.answered_before) == (len(events) - 5, 5)

    rows = Lake(stack.settings.lake, SOURCE, MODEL).scan(PREDICTIONS).to_table().to_pylist()
    by_event = {row["event"]["transaction_id"]: row for row in rows if row["replica"].startswith("batch")}
    logged = {row["event"]["transaction_id"]: row for row in rows if not row["replica"].startswith("batch")}
    assert len(by_event) == result.rows
    decisions, defaulted = set(), 0
    for event, answer in zip(twins.to_pylist(), answers, strict=True):
        twin = logged[event["transaction_id"]]
        if (row := by_event.get(event["transaction_id"] - TWIN)) is None:
            continue
        assert dict(row["outputs"])["score"] == pytest.approx(answer["score"], rel=1e-6)
        assert row["decision"] == answer["decision"]
        assert dict(row["features"]) == dict(twin["features"])
        for name in ("model_version", "role", "features_defaulted", "feature_timestamp", "day"):
            assert row[name] == twin[name], name
        assert {**row["event"], "transaction_id": event["transaction_id"]} == twin["event"]
        decisions.add(row["decision"])
        defaulted += row["features_defaulted"]
    assert decisions == {"alert", "pass"}
    assert 0 < defaulted < result.rows
