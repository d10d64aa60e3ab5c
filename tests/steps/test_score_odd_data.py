"""Scoring in batch what is odd: sources without entities, every type of column, values that no model can take."""

from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from testing.spec_files import Raw
from tests.adapters.engines import ENGINES, engine_settings
from tests.steps.batch_world import BatchWorld, ids
from tests.steps.ingest_helpers import GENERATOR, day
from tests.steps.test_column_types import VALUES, plain, same
from training.adapters.lake import PREDICTIONS
from training.adapters.logged_predictions import Predictions
from training.contract.base import Days
from training.contract.model_spec import load_model_spec
from training.domain.arrow_types import arrow_type


def _without_entities(model: Raw, source: Raw) -> None:
    """No feature tables; features are columns of the event. Besides, a column of every type."""
    columns = source["feeds"]["events"]["columns"]
    columns["amount"] = {"type": "float64"}
    columns |= {"kind": {"type": "category", "nullable": True}, "checked": {"type": "bool"}}
    columns |= {f"t{place}": {"type": name, "nullable": True} for place, name in enumerate(VALUES)}
    source["features"] = {"tables": {}, "event_columns": ["amount", "kind", "checked", "t0"]}


@pytest.mark.parametrize("name", ENGINES)
def test_without_entities_each_type_of_column_is_kept_and_what_is_no_number_has_no_prediction(
    name: str, tmp_path: Path, mlflow_database: Path, request: pytest.FixtureRequest
) -> None:
    world = BatchWorld(tmp_path, mlflow_database, _without_entities)
    world.settings = world.settings.model_copy(update=engine_settings(name, request))
    Path(world.settings.feature_repo, "card_payments.py").unlink()
    rows = GENERATOR.events(day(0)).slice(0, 8)
    types = {name: arrow_type(column) for name, column in world.spec.request_columns.items()}
    given: dict[str, list[Any]] = {
        # Of the last two, one is infinite as float32, one lacks a feature that this version never misses.
        "amount": [2.5] * 6 + [1e300, 2.5],
        "kind": ["a", "unseen", "", "a", "a", "a", "a", None],
        "checked": [True, False] * 4,
        **{f"t{place}": list(islice(cycle([*values, None]), 8)) for place, values in enumerate(VALUES.values())},
    }
    # A feature too.
    given["t0"] = [1, 2, 3, 4, 5, 127, 7, -128]
    for name, values in given.items():
        column = pa.array(values, types[name])
        place = rows.column_names.index(name) if name in rows.column_names else rows.num_columns
        rows = rows.set_column(place, name, column) if place < rows.num_columns else rows.append_column(name, column)
    world.promote(old=True)
    world.land(name=str(day(0)), rows=rows)
    result = world.score()
    assert (result.rows, result.not_finite, result.incomplete) == (6, 2, 0)
    logged = Predictions(world.lake, world.spec, world.lake.version(PREDICTIONS))
    read = logged.answered(Days(start=day(0), end=day(1)), world.spec.request_columns)
    read = read.sort_values("transaction_id")
    expected = rows.slice(0, 6)
    for name in world.spec.request_columns:
        assert same([plain(value) for value in read[name]], [plain(each) for each in expected[name].to_pylist()]), name
    table = world.predictions()
    assert set(table["features_defaulted"].to_pylist()) == {False}
    assert table["feature_timestamp"].to_pylist() == [each["event_time"] for each in table["event"].to_pylist()]


def test_events_from_before_a_column_that_is_never_null_have_no_prediction(
    tmp_path: Path, mlflow_database: Path
) -> None:
    world = BatchWorld(tmp_path, mlflow_database)
    world.promote()
    world.land(0)
    path = Path(world.settings.feature_repo, "card_payments.yaml")
    source = yaml.safe_load(path.read_text())
    source["feeds"]["events"]["columns"]["since"] = {"type": "int64"}
    path.write_text(yaml.safe_dump(source))
    result = world.score()
    assert (result.partitions, result.rows, result.incomplete) == ([str(day(0))], 0, len(ids(0)))


def test_a_column_that_gets_another_type_converts_the_table(tmp_path: Path, mlflow_database: Path) -> None:
    def whole(model: Raw, source: Raw) -> None:
        source["feeds"]["events"]["columns"]["points"] = {"type": "int64", "nullable": True}

    world = BatchWorld(tmp_path, mlflow_database, whole)
    world.promote()

    def land(number: int, values: pa.Array) -> None:
        world.land(name=str(day(number)), rows=GENERATOR.events(day(number)).append_column("points", values))

    land(0, pa.repeat(3, len(ids(0))))
    world.score()
    path = Path(world.settings.feature_repo, "card_payments.yaml")
    source = yaml.safe_load(path.read_text())
    source["feeds"]["events"]["columns"]["points"]["type"] = "float64"
    path.write_text(yaml.safe_dump(source))
    world.spec = load_model_spec(world.spec.name, world.settings.models_dir, world.settings.feature_repo)
    land(1, pa.repeat(1.5, len(ids(1))))
    assert world.score().rows == len(ids(1))
    points = world.predictions()["event"].combine_chunks().field("points").to_pylist()
    assert sorted(points) == [1.5] * len(ids(1)) + [3.0] * len(ids(0))
    assert world.answered() == ids(0, 1)
