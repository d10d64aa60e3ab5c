"""Samples of events and predictions: each engine draws those that are drawn in memory, of what is in the lake."""

import numpy as np
import pandas as pd
import pytest

from tests.adapters.engines import ENGINES, engine_of
from tests.feature_repo.payments_and_features import MODEL, SOURCE, day, payments, put
from tests.steps.prediction_tables import prediction_table
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.logged_predictions import Predictions
from training.adapters.tables import Events
from training.contract.base import Days
from training.contract.model_spec import load_model_spec
from training.contract.registries import FEATURE_ENGINES
from training.domain.frames import FEATURE_TIMESTAMP, LOGGED_FEATURES, LOGGED_OUTPUTS, PREDICTED_AT, PREDICTION_ID
from training.domain.samples import sampled
from training.settings import Settings

DAYS = Days(start=day(2), end=day(7))


@pytest.mark.parametrize("name", ENGINES)
def test_events(name: str, settings: Settings, request: pytest.FixtureRequest) -> None:
    engine, spec = engine_of(name, request), load_model_spec(MODEL)
    version = put(settings, *payments(9))["events"]
    reader = Events(Lake(settings.lake, SOURCE), spec.source, version)
    everything = reader.within(DAYS)
    found = reader.sampled(DAYS, 20, 5, engine)
    assert len(everything) > 60 > len(found) == 20
    pd.testing.assert_frame_equal(found, sampled(everything, "transaction_id", 20, 5))
    pd.testing.assert_frame_equal(
        reader.sampled(DAYS, 99, 5, engine), everything.sort_values("transaction_id", ignore_index=True)
    )


@pytest.mark.parametrize("name", ENGINES)
def test_predictions(name: str, settings: Settings, request: pytest.FixtureRequest) -> None:
    """Answers of two versions, of another artifact, of shadows, some to one event; with outputs and features."""
    engine, spec, random = engine_of(name, request), load_model_spec(MODEL), np.random.default_rng(3)
    events, _ = payments(9)
    rows = pd.concat([events, events.iloc[::3]], ignore_index=True)
    rows["score"] = random.random(len(rows))
    made = prediction_table(
        spec,
        rows,
        prediction_id=[f"p{i}" for i in random.permutation(len(rows))],
        predicted_at=rows["event_time"] + pd.to_timedelta(random.integers(0, 99, len(rows)), unit="s"),
        role=random.choice(["champion", "shadow"], len(rows), p=[0.8, 0.2]),
        model_version=random.choice([1, 2], len(rows), p=[0.8, 0.2]),
        model_digest=random.choice(["a", "b", None], len(rows), p=[0.5, 0.2, 0.3]),
        feature_timestamp=rows["event_time"].dt.floor("D").mask(random.random(len(rows)) < 0.2),
        features=[[("x", float(i)), ("y", None)] if i % 5 else None for i in range(len(rows))],
    )
    lake = Lake(settings.lake, SOURCE, MODEL)
    reader = Predictions(lake, spec, lake.overwrite(PREDICTIONS, made, ["day"]))
    columns = ["transaction_id", "event_time", "customer_id"]
    kinds = {"features": True, "outputs": True, "digest": "a"}
    everything = reader.answered(DAYS, columns, 1, **kinds).sort_values(PREDICTION_ID, ignore_index=True)
    found = reader.sampled(DAYS, columns, 999, 5, engine, 1, **kinds)
    assert len(found) == len(everything) > 30
    plain = [column for column in found if column not in (LOGGED_FEATURES, LOGGED_OUTPUTS)]
    pd.testing.assert_frame_equal(found[plain], everything[plain])
    for column in (LOGGED_FEATURES, LOGGED_OUTPUTS):
        left, right = ([each if each is None else dict(each) for each in rows[column]] for rows in (found, everything))
        assert left == right
    few = reader.sampled(DAYS, columns, 20, 5, engine, 1, **kinds)
    first = everything.sort_values([PREDICTED_AT, PREDICTION_ID]).drop_duplicates("transaction_id")
    drawn = sampled(first, "transaction_id", 20, 5)
    assert len(few) == 20
    assert few["transaction_id"].isin(drawn["transaction_id"]).all()
    assert drawn[PREDICTION_ID].head(1).isin(few[PREDICTION_ID]).all()
    uses = reader.first_uses(DAYS, engine).set_index(FEATURE_TIMESTAMP)[PREDICTED_AT]
    known = reader.answered(DAYS, columns).dropna(subset=[FEATURE_TIMESTAMP])
    assert uses.to_dict() == known.groupby(FEATURE_TIMESTAMP)[PREDICTED_AT].min().to_dict()


def test_without_a_table_there_is_nothing_to_draw(settings: Settings) -> None:
    spec = load_model_spec(MODEL)
    reader = Predictions(Lake(settings.lake, SOURCE, MODEL), spec, None)
    engine = FEATURE_ENGINES.find("duckdb")()
    assert reader.sampled(DAYS, ["transaction_id"], 9, 1, engine, outputs=True).empty
    assert reader.first_uses(DAYS, engine).empty
