"""Reads of predictions and events of some days touch the files of those days alone.

The files of all other days are overwritten with as many zeros: a reader that opened one would fail.
"""

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pytest

from tests.feature_repo.payments_and_features import MODEL, day, midnight, payments
from tests.steps.prediction_tables import prediction_table
from training.adapters.feed_table import FeedTable
from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.logged_predictions import Predictions
from training.adapters.tables import Events
from training.contract.base import Days
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.arrow_types import feed_schema
from training.settings import Settings

DAYS = 12
WANTED = Days(start=day(5), end=day(8))


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return load_model_spec(MODEL)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, spec: ModelSpec) -> Path:
    """A lake: predictions with a file for each day, and events with one for each landed day."""
    folder = tmp_path_factory.mktemp("made")
    found = Lake(str(folder), spec.source.name, spec.name)
    rows = payments(DAYS)[0].assign(score=0.5)
    for number in range(DAYS):
        of_day = rows[rows["event_time"].dt.date == day(number)]
        found.append_once(PREDICTIONS, prediction_table(spec, of_day), ["day"], "test", number)
        events = pa.Table.from_pandas(of_day[list(spec.source.events.columns)], preserve_index=False)
        times = events["event_time"].cast(pa.timestamp("us", "UTC"))
        events = events.set_column(events.schema.get_field_index("event_time"), "event_time", times)
        events = events.append_column("partition", pa.array([str(day(number))] * len(events)))
        found.replace(EVENTS, events, f"partition = '{day(number)}'", ["partition"])
    return folder


@pytest.fixture
def lake(made: Path, settings: Settings, spec: ModelSpec) -> Lake:
    """A copy of `made`, to be spoilt."""
    shutil.copytree(made, settings.lake)
    return Lake(settings.lake, spec.source.name, spec.name)


def spoil(lake: Lake, table: str, keep: Days) -> int:
    """Overwrite the files of all days but `keep`; returns how many."""
    files = [path for path in Path(lake.uri(table)).rglob("*.parquet")]
    wanted = {str(keep.start + timedelta(days=n)) for n in range(len(keep))}
    others = [path for path in files if unquote(path.parent.name).split("=")[1] not in wanted]
    for path in others:
        path.write_bytes(bytes(path.stat().st_size))
    return len(others)


READS: dict[str, Callable[[Predictions, ModelSpec], object]] = {
    "answered": lambda read, spec: read.answered(WANTED, spec.request_columns, features=True, outputs=True),
    "ids": lambda read, spec: read.ids(WANTED),
    "of_replica": lambda read, spec: range(read.of_replica("test", WANTED)),
}


@pytest.mark.parametrize("name", READS)
def test_predictions_of_some_days(lake: Lake, spec: ModelSpec, name: str) -> None:
    read = Predictions(lake, spec, lake.version(PREDICTIONS))
    before = len(READS[name](read, spec))  # type: ignore[arg-type]
    assert spoil(lake, PREDICTIONS, WANTED) == DAYS - len(WANTED)
    assert len(READS[name](read, spec)) == before > 0  # type: ignore[arg-type]


def test_predictions_since_a_moment(lake: Lake, spec: ModelSpec) -> None:
    """By the statistics of the files, for the moment is not one of an event."""
    assert spoil(lake, PREDICTIONS, Days(start=day(8), end=day(DAYS))) == 8
    found = Predictions(lake, spec, lake.version(PREDICTIONS)).scored_since(midnight(8), [1], ["transaction_id"])
    assert len(found) > 0


def test_events_of_some_days(lake: Lake, spec: ModelSpec) -> None:
    version = lake.version(EVENTS)
    assert version is not None
    before = Events(lake, spec.source, version).within(WANTED)
    assert spoil(lake, EVENTS, WANTED) == DAYS - len(WANTED)
    pd.testing.assert_frame_equal(Events(lake, spec.source, version).within(WANTED), before)


def test_events_of_a_partition(lake: Lake, spec: ModelSpec) -> None:
    columns = feed_schema(spec.source.events)
    before = pa.concat_tables(FeedTable(lake, EVENTS).of_partition(str(WANTED.start), columns))
    assert spoil(lake, EVENTS, Days(start=WANTED.start, end=day(6))) == DAYS - 1
    assert pa.concat_tables(FeedTable(lake, EVENTS).of_partition(str(WANTED.start), columns)) == before
    assert before.num_rows > 0


def test_values_of_other_partitions(lake: Lake, spec: ModelSpec) -> None:
    """By the statistics of the files."""
    times = midnight(5), midnight(8) - timedelta(microseconds=1)
    assert spoil(lake, EVENTS, WANTED) == DAYS - len(WANTED)
    found = pa.Table.from_batches(FeedTable(lake, EVENTS).elsewhere(str(day(6)), "event_time", *times))
    assert set(found["partition"].to_pylist()) == {str(day(5)), str(day(7))}
    assert not [*FeedTable(lake, EVENTS).elsewhere(str(day(6)), "no_such_column", 0, 1)]
    assert not [*FeedTable(lake, "labels").elsewhere(str(day(6)), "transaction_id", 0, 1)]


def test_another_day_would_fail(lake: Lake, spec: ModelSpec) -> None:
    spoil(lake, PREDICTIONS, WANTED)
    days = Days(start=WANTED.start, end=date(2100, 1, 1))
    with pytest.raises(pa.ArrowInvalid):
        Predictions(lake, spec, lake.version(PREDICTIONS)).answered(days, spec.request_columns)
