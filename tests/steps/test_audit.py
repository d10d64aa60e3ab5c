"""The skew audit: logged features against their history, with the online store behind, empty, or wrong."""

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.steps.monitored_model import DRIFTED, MODEL, MonitoredModel
from tests.steps.prediction_tables import prediction_table
from training.adapters.features import Features
from training.adapters.lake import PREDICTIONS
from training.adapters.ledger import Ledger
from training.contract.base import Days
from training.contract.messages import AuditInputs, AuditResult, Snapshot
from training.contract.model_spec import load_model_spec
from training.settings import Settings
from training.steps import audit

WINDOW = Days.ending(DRIFTED, 7)
ROWS = 400
Change = Callable[[pd.DataFrame], pd.DataFrame]


def served(world: MonitoredModel, at: pd.Series | None = None) -> pd.DataFrame:
    """The window's first events with the features that the online store, filled up to `at`, would have served."""
    spec = load_model_spec(MODEL)
    events = world.lake.scan("events").to_table(list(spec.request_columns)).to_pandas()
    start = pd.Timestamp(WINDOW.start, tz="UTC")
    events = events[events["event_time"] >= start].nsmallest(5000, "event_time")[::12].reset_index(drop=True)[:ROWS]
    features = Features(world.settings, spec)
    versions = world.lake.versions(*spec.source.entities)
    times = events["event_time"] if at is None else at.reindex(events.index, method="ffill")
    known = features.historical(events, versions, pd.DatetimeIndex(times))[features.names()]
    return events.join(known.astype(float), rsuffix="_feature").assign(feature_timestamp=times.dt.floor("D"))


@pytest.fixture(scope="module")
def agreeing(world: MonitoredModel) -> pd.DataFrame:
    """What was served with the online store always filled: for all tests that change something of it."""
    return served(world)


@pytest.fixture
def rows(agreeing: pd.DataFrame) -> pd.DataFrame:
    return agreeing.copy()


def log(
    world: MonitoredModel,
    rows: pd.DataFrame,
    shadow: bool = False,
    old_table: bool = False,
    also: dict[str, float] | None = None,
) -> None:
    """Put exactly these predictions into the lake; in the layout before, without feature timestamps, if `old_table`.

    `also`: features that the first ten have besides.
    """
    spec = load_model_spec(MODEL)
    names = Features(world.settings, spec).names()
    columns = [name if f"{name}_feature" not in rows else f"{name}_feature" for name in names]
    features = [dict(zip(names, each, strict=True)) for each in rows[columns].to_numpy().tolist()]
    for each in features[:10]:
        each.update(also or {})
    times = pd.to_datetime(rows["feature_timestamp"], utc=True).dt.as_unit("us")
    predictions = rows[list(spec.request_columns)].assign(score=0.5, feature_timestamp=times)
    if old_table:
        flat = predictions.drop(columns="feature_timestamp").assign(
            prediction_id=[f"p{i:05d}" for i in range(len(rows))],
            predicted_at=rows["event_time"],
            flagged=False,
            model_version=1,
            features=[json.dumps(each) for each in features],
            replica="r",
            day=rows["event_time"].dt.date,
        )
        table = pa.Table.from_pandas(flat, preserve_index=False)
    else:
        table = prediction_table(spec, predictions, features=[list(each.items()) for each in features])
    if shadow:
        wrong = prediction_table(spec, predictions, role="shadow", features=[[]] * len(rows))
        table = pa.concat_tables([table, wrong])
    world.lake.overwrite("predictions", table, ["day"])


def run(world: MonitoredModel) -> AuditResult:
    return audit.run(AuditInputs(model=MODEL, as_of=DRIFTED), world.settings)


@pytest.fixture(autouse=True)
def _no_predictions_left(world: MonitoredModel):  # type: ignore[no-untyped-def]
    yield
    shutil.rmtree(world.lake.uri("predictions"), ignore_errors=True)


def test_what_agrees_is_no_skew(world: MonitoredModel, rows: pd.DataFrame) -> None:
    log(world, rows, shadow=True)
    result = run(world)
    assert (result.outcome, result.window, result.rows, result.share) == ("measured", WINDOW, ROWS, 0.0)
    assert {
        "payment_amount",
        "customer_mean_7d",
        "terminal_fraud_share_7d",
        "amount_over_mean_7d",
    } <= result.features.keys()
    assert all((each.values, each.mismatches, each.behind) == (ROWS, 0, 0) for each in result.features.values())


def test_a_store_that_was_behind_is_told_apart_from_skew(world: MonitoredModel, rows: pd.DataFrame) -> None:
    midnight = pd.Timestamp(WINDOW.start, tz="UTC")
    # Filled once, at the start of the window: on later days it is behind.
    log(world, served(world, pd.Series(midnight, index=rows.index)))
    result = run(world)
    assert result.share == 0.0
    assert sum(each.behind for each in result.features.values()) > 0


def test_a_store_that_knew_nobody_gave_defaults(world: MonitoredModel) -> None:
    never = pd.Series(pd.Timestamp("2001-01-01", tz="UTC"), index=range(ROWS))
    log(world, served(world, never).assign(feature_timestamp=pd.NaT))
    result = run(world)
    assert result.share == 0.0
    assert result.features["customer_count_30d"].defaulted > 0


@pytest.mark.parametrize("old_table", [False, True])
def test_values_that_nothing_explains_are_reported(world: MonitoredModel, rows: pd.DataFrame, old_table: bool) -> None:
    rows.loc[:19, "customer_mean_7d"] += 10.0
    rows.loc[5, "customer_mean_7d"] += 90.0
    log(world, rows, old_table=old_table)
    result = run(world)
    found = result.features["customer_mean_7d"]
    assert (found.mismatches, found.share) == (20, 20 / ROWS)
    assert found.largest == pytest.approx(100, rel=1e-4)
    assert (found.examples[0].id, len(found.examples)) == ("p00005", 3)
    assert found.examples[0].logged - found.examples[0].offline == pytest.approx(100, rel=1e-4)
    assert result.share == pytest.approx(20 / sum(each.values for each in result.features.values()))
    assert {name for name, each in result.features.items() if each.mismatches} == {"customer_mean_7d"}
    page = Path(result.report or "").read_text()
    assert "| customer_mean_7d | 20 | 5.00% |" in page


def test_a_logged_feature_that_is_no_number_is_reported(world: MonitoredModel, rows: pd.DataFrame) -> None:
    rows.loc[:2, "customer_mean_7d"] = np.nan
    rows.loc[3, "customer_mean_7d"] += 50.0
    log(world, rows)
    result = run(world)
    found = result.features["customer_mean_7d"]
    assert found.mismatches == 4
    assert found.largest == pytest.approx(50, rel=1e-4)
    assert [each.logged for each in found.examples] == [None] * 3
    assert AuditResult.model_validate_json(result.model_dump_json()) == result
    assert "p00000: not a number → " in Path(result.report or "").read_text()


def test_features_that_came_or_went_are_no_skew(world: MonitoredModel, rows: pd.DataFrame) -> None:
    """A version that is gone from the definitions' point of view, and one that did not take a feature yet."""
    log(world, rows, also={"customer_count_90d": 3.0})
    table = world.lake.scan("predictions").to_table()
    fewer = [[pair for pair in each if pair[0] != "night"] for each in table["features"].to_pylist()[:100]]
    features = fewer + table["features"].to_pylist()[100:]
    place = table.column_names.index("features")
    table = table.set_column(place, "features", pa.array(features, table.schema.field("features").type))
    world.lake.overwrite("predictions", table, ["day"])
    result = run(world)
    assert result.share == 0.0
    assert (result.features["night"].values, result.features["weekend"].values) == (ROWS - 100, ROWS)
    assert result.not_defined == {"customer_count_90d": 10}
    assert "not compared: customer_count_90d (10 requests)" in Path(result.report or "").read_text()


def test_the_ledger_keeps_the_share_once(world: MonitoredModel, rows: pd.DataFrame, tmp_path: Path) -> None:
    rows["terminal_count_1d"] += 1
    log(world, rows)
    settings = Settings(**{**world.settings.model_dump(), "ledger_uri": str(tmp_path / "ledger")})
    inputs = AuditInputs(model=MODEL, as_of=DRIFTED)
    assert audit.run(inputs, settings) == audit.run(inputs, settings)
    [entry] = Ledger(settings.ledger).entries(MODEL)
    assert (entry.kind, entry.body["mismatches"]) == ("audit", ROWS)
    assert entry.body["features"] == {"terminal_count_1d": 1.0}


def test_a_table_of_predictions_created_again_is_audited_again(
    world: MonitoredModel, rows: pd.DataFrame, tmp_path: Path
) -> None:
    settings = Settings(**{**world.settings.model_dump(), "ledger_uri": str(tmp_path / "ledger")})
    for skew in (1, 0):
        shutil.rmtree(world.lake.uri(PREDICTIONS), ignore_errors=True)
        log(world, rows.assign(terminal_count_1d=rows["terminal_count_1d"] + skew))
        audit.run(AuditInputs(model=MODEL, as_of=DRIFTED), settings)
    entries = Ledger(settings.ledger).entries(MODEL)
    assert [entry.body["mismatches"] for entry in entries] == [ROWS, 0]


def test_nothing_to_audit(world: MonitoredModel, rows: pd.DataFrame) -> None:
    assert run(world).outcome == "no predictions"
    assert audit.run(AuditInputs(model=MODEL, snapshot=Snapshot()), world.settings).outcome == "no predictions"
    log(world, rows)
    early = AuditInputs(model=MODEL, as_of=DRIFTED - timedelta(days=30))
    assert audit.run(early, world.settings).outcome == "no predictions"


def test_a_request_may_only_be_explained_by_times_before_it() -> None:
    from training.domain.audit import horizons

    times = pd.Series(pd.to_datetime(["2026-01-03", "2026-01-01", "2026-01-02"], utc=True))
    used = pd.Series(pd.to_datetime(["2026-01-01", None, "2026-01-02"], utc=True))
    found = horizons(times, times[used.notna()], used.dropna())
    assert found.isna().tolist() == [False, True, False]
    assert found[0] == used[2]
    assert np.all(found.dropna() <= times[found.notna()])
