"""Scoring in batch on Spark: the rows of the step's own process, whichever kind of task, and each of them once."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from testing.serving_stack import registered
from testing.spec_files import Raw
from testing.task_kinds import artifact_of, spec_of
from tests.cases import others_long
from tests.steps.batch_world import BatchWorld, ids
from tests.steps.ingest_helpers import GENERATOR, MODEL, day
from training.adapters.features import Features
from training.adapters.lake import PREDICTIONS, Appending, Lake
from training.adapters.registry import CHAMPION
from training.contract.messages import ScoreInputs, ScoreResult
from training.settings import Settings
from training.spark_session import connect
from training.steps import score

pytestmark = pytest.mark.spark


def odd_events(number: int) -> pa.Table:
    """The events of a day; some are of entities that nobody knows, or without a value where the spec allows it."""
    events, random = GENERATOR.events(day(number)), np.random.default_rng(5)
    customers = np.where(random.random(len(events)) < 0.2, 9_999_999, events["customer_id"].to_numpy())
    place = events.column_names.index("customer_id")
    events = events.set_column(place, "customer_id", pa.array(customers, events.schema.field("customer_id").type))
    kinds = random.choice(np.array(["a", "b", "unseen", "", None], object), len(events))
    return events.append_column("kind", pa.array(kinds, pa.string()))


def predictions(settings: Settings, world: BatchWorld) -> list[dict[str, Any]]:
    table = Lake(settings.lake, world.spec.source.name, MODEL).scan(PREDICTIONS).to_table()
    return table.sort_by("prediction_id").drop_columns("predicted_at").to_pylist()


@pytest.mark.parametrize("kind", others_long(["binary", "multiclass", "regression"]))
def test_the_rows_are_those_of_the_local_path(kind: str, tmp_path: Path, mlflow_database: Path, spark_url: str) -> None:
    def change(model: Raw, source: Raw) -> None:
        source["feeds"]["events"]["columns"]["kind"] = {"type": "category", "nullable": True}
        for name in ("task", "evaluation", "rollout"):
            model.pop(name, None)
        model.update({name: value for name, value in spec_of(kind).items() if name in ("task", "evaluation")})

    world = BatchWorld(tmp_path, mlflow_database, change)
    for number in range(3):
        world.land(name=str(day(number)), rows=odd_events(number))
    if kind == "binary":
        world.promote(bias=-0.9)
    else:
        made = artifact_of(tmp_path / "artifact", kind, Features(world.settings, world.spec))
        world.registry.set_alias(MODEL, CHAMPION, registered(world.settings, made).version)
    # Not a copy of the settings: that would remember where the lake was.
    places = {"home": tmp_path / "there", "engine": "spark", "engine_url": spark_url}
    there = Settings(**(world.settings.model_dump() | places))
    shutil.copytree(world.settings.home, there.home)
    results = [score.run(ScoreInputs(model=MODEL, run="run"), settings) for settings in (world.settings, there)]
    assert results[0].rows == results[1].rows == len(ids(0, 1, 2))
    assert there.lake != world.settings.lake
    local, found = predictions(world.settings, world), predictions(there, world)
    assert len(local) == len(ids(0, 1, 2))
    assert 0 < sum(row["features_defaulted"] for row in local) < len(local)
    assert len({row["decision"] for row in local}) == {"binary": 2, "multiclass": 4, "regression": 1}[kind]
    assert found == local


@pytest.mark.parametrize("survive", others_long([1, 0]))
def test_killed_at_a_commit_the_next_try_leaves_every_prediction_once(
    survive: int, tmp_path: Path, mlflow_database: Path, spark_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = BatchWorld(tmp_path, mlflow_database, batch_rows=1)
    world.promote()
    world.land(0)
    settings = world.settings.model_copy(update={"engine": "spark", "engine_url": spark_url})
    connect(spark_url).session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "30")
    commit, left = Appending.commit, iter(range(survive))

    def killed(self: Appending, rows: pa.RecordBatchReader, transactions: dict[str, int]) -> int:
        if next(left, None) is None:
            list(rows)
            raise KeyboardInterrupt
        return commit(self, rows, transactions)

    def run() -> ScoreResult:
        return score.run(ScoreInputs(model=MODEL, run="run"), settings)

    with monkeypatch.context() as patch:
        patch.setattr(Appending, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert survive == (len(world.answered()) > 0 if world.lake.version(PREDICTIONS) else 0)
    before = len(world.answered())
    for _ in range(2):
        assert (run().rows, world.answered()) == (len(ids(0)), ids(0))
    named = score.run(ScoreInputs(model=MODEL, partition=str(day(0))), settings)
    assert (named.rows, named.answered_before) == (0, len(ids(0)))
    assert before < len(ids(0))
