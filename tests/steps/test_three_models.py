"""The models of this repository in one stack, each from landed files to a registered version.

card_fraud learns from generated events, flight_delay and flight_outcome from the real flights of one source.
"""

import shutil
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from local import flights, generator
from testing.pipeline import Pipeline
from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import CHALLENGER, CHAMPION, Registry
from training.contract.base import Days
from training.contract.messages import EvaluateResult, RegisterResult, ScoreInputs
from training.domain.arrow_types import utc_days
from training.settings import Settings
from training.steps import score

pytestmark = pytest.mark.long

#: Twelve weeks of flights, with the snowstorm of 8 and 9 February, when half of the flights were cancelled.
FIRST, LAST = date(2013, 1, 2), date(2013, 3, 26)
AS_OF, WINDOW_DAYS = LAST + timedelta(days=3), 49
#: Small, so that the test is quick.
TREES = {"max_iter": 40, "max_leaf_nodes": 15}
CLASSES = ["cancelled", "late", "on_time"]


class Stack:
    """One home with all three models; each is judged and registered once."""

    def __init__(self, folder: Path, database: Path) -> None:
        shutil.copy(database, folder / "mlflow.db")
        self.settings = Settings(home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db")
        self.pipeline = Pipeline(self.settings)
        landing = Path(self.settings.landing)
        self.pipeline.ingest("flights", flights.land(landing, "flights", FIRST, LAST, days_per_file=28))
        start = date(2026, 1, 5)
        made = generator.Generator(customers=300, terminals=400, payments_per_day=2.0)
        days = Days(start=start, end=start + timedelta(days=56))
        generated = [generator.land(made, landing, "card_payments", feed, days) for feed in ("events", "labels")]
        self.pipeline.ingest("card_payments", generated)
        self.judged: dict[str, EvaluateResult] = {}
        self.registered: dict[str, RegisterResult] = {}
        self._bring("card_fraud", start + timedelta(days=56), 14)
        self._bring("flight_delay", AS_OF, WINDOW_DAYS)
        self._bring("flight_outcome", AS_OF, WINDOW_DAYS)

    def _bring(self, model: str, as_of: date, window_days: int) -> None:
        estimators = {"hist_gradient_boosting": TREES}
        self.judged[model] = self.pipeline.judge(model, as_of, window_days, estimators)
        self.registered[model] = self.pipeline.register(model, self.judged[model])

    def artifact(self, model: str) -> OnnxModel:
        return OnnxModel.load(Path(self.judged[model].challenger.artifact_uri))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Stack:
    return Stack(tmp_path_factory.mktemp("stack"), mlflow_database)


def test_each_is_judged_and_registered(stack: Stack) -> None:
    registry = Registry(stack.settings.tracking_uri)
    for model, kind in {"card_fraud": "binary", "flight_delay": "regression", "flight_outcome": "multiclass"}.items():
        assert stack.judged[model].verdict.promote, stack.judged[model].verdict.reasons
        version = registry.by_alias(model, CHALLENGER)
        assert version is not None
        assert version.version == stack.registered[model].version == 1
        assert stack.artifact(model).metadata.task["kind"] == kind


def test_both_flight_models_share_one_lake_and_one_set_of_features(stack: Stack) -> None:
    delay, outcome = (stack.artifact(f"flight_{name}").metadata for name in ("delay", "outcome"))
    assert delay.table_versions == outcome.table_versions
    assert delay.feature_names == outcome.feature_names
    assert {"carrier", "wind_speed", "departure_minute", "route_delay_28d"} <= set(delay.feature_names)
    # What became of a flight is no feature of it.
    assert not {"arrival_delay", "outcome", "reported_at"} & set(delay.feature_names)
    assert Path(stack.settings.lake, "flights", "route_delays").is_dir()
    assert not Path(stack.settings.lake, "flight_delay").exists()


def test_cancelled_flights_count_as_labelled_and_are_not_learned_from(stack: Stack) -> None:
    """On 9 February far fewer than the required share had a delay, and the window was accepted."""
    events = pq.read_table(Path(stack.settings.landing, "flights", "labels")).to_pandas()
    storm = events[events["flight_id"].str.startswith("2013-02-09")]
    assert (storm["outcome"] == "cancelled").mean() > 0.3
    datasets = Path(stack.settings.work) / "flight_delay" / "datasets"
    (train,) = (pq.read_table(path) for path in datasets.glob("*/train.parquet"))
    assert train["arrival_delay"].null_count == 0
    learned = set(train["flight_id"].to_pylist())
    assert not learned & set(storm.loc[storm["arrival_delay"].isna(), "flight_id"])
    assert learned & set(storm.loc[storm["arrival_delay"].notna(), "flight_id"])


def test_the_delay_is_predicted_better_than_by_the_mean_of_the_route(stack: Stack) -> None:
    (path,) = (Path(stack.settings.work) / "flight_delay" / "datasets").glob("*/dataset.json")
    train, holdout = (pq.read_table(path.parent / f"{name}.parquet").to_pandas() for name in ("train", "holdout"))
    of_route = train.groupby(["origin", "destination"], observed=True)["arrival_delay"].mean()
    naive = holdout.join(of_route.rename("naive"), on=["origin", "destination"])["naive"]
    error = np.sqrt(np.mean((naive.fillna(train["arrival_delay"].mean()) - holdout["arrival_delay"]) ** 2))
    metrics = stack.judged["flight_delay"].metrics["hist_gradient_boosting"]
    assert metrics["rmse"] < error
    assert metrics["interval_coverage"] > 0.8


def test_the_outcome_is_predicted_better_than_by_the_shares_of_the_outcomes(stack: Stack) -> None:
    metrics = stack.judged["flight_outcome"].metrics["hist_gradient_boosting"]
    assert metrics["ovr_auc"] > 0.6
    assert stack.artifact("flight_outcome").metadata.task["classes"] == CLASSES


def test_the_last_flights_are_scored_in_batch(stack: Stack) -> None:
    model, settings = "flight_outcome", stack.settings
    Registry(settings.tracking_uri).set_alias(model, CHAMPION, 1)

    done = score.run(ScoreInputs(model=model), settings)

    assert done.outcome == "scored"
    lake = Lake(settings.lake, "flights", model)
    events, found = (lake.scan(table).to_table() for table in (EVENTS, PREDICTIONS))
    # Older ones are scored only when a person names their partition.
    days = utc_days(events["scheduled_departure"])
    recent = pc.greater_equal(days, pc.max(days).as_py() - timedelta(days=6))
    flights_scored = found["event"].combine_chunks().field("flight_id").to_pylist()
    assert sorted(flights_scored) == sorted(events.filter(recent)["flight_id"].to_pylist())
    assert done.rows == len(flights_scored) > 1000
    rows = found.to_pylist()
    probabilities = np.array([[dict(row["outputs"])[name] for name in CLASSES] for row in rows])
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert {row["decision"] for row in rows} <= set(CLASSES)
    assert score.run(ScoreInputs(model=model), settings).outcome == "nothing new"
