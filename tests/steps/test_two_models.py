"""Two models over one source: it is ingested once, its features are computed once, and each has its own label."""

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from local.generator import Generator
from local.landing import land_table
from testing.spec_files import MODEL, SOURCE, Raw, raw_specs, spec_files
from training.adapters.lake import Lake
from training.adapters.registry import CHAMPION, Registry
from training.contract import messages as m
from training.contract.base import Days, midnight
from training.settings import Settings
from training.steps import dataset, drift, features, ingest, train

pytestmark = pytest.mark.long

START, DAYS, OTHER = date(2026, 1, 5), 42, "dispute"
CHOSEN = ["customer_mean_7d", "terminal_count_7d", "payment_amount", "night"]


def two_models(folder: Path) -> dict[str, Path]:
    """card_fraud, and a model of another label in a feed of its own, which takes four features."""

    def disputes(model: Raw, source: Raw) -> None:
        columns = {"transaction_id": {"type": "int64"}, "closed_at": {"type": "timestamp"}}
        columns |= {"is_disputed": {"type": "bool"}}
        feed = {"time_column": "closed_at", "id_column": "transaction_id", "columns": columns}
        source["feeds"]["disputes"] = feed
        source["labels"]["is_disputed"] = {"feed": "disputes", "delay_days": 3}
        model["training"]["estimators"] = {"logistic_regression": {}}

    files = spec_files(folder, disputes)
    other, _ = raw_specs()
    other |= {"name": OTHER, "title": "Disputes", "label": "is_disputed", "features": CHOSEN}
    other["training"] |= {"window_days": 7, "estimators": {"logistic_regression": {}}}
    other["evaluation"]["exclude_known_entities"] = False
    (files["models_dir"] / f"{OTHER}.yaml").write_text(yaml.safe_dump(other))
    return files


def land(settings: Settings) -> None:
    """Ingest one partition of each feed, and compute the features: what the data DAG does."""
    generator = Generator(seed=1, customers=400, terminals=800)
    days = [START + timedelta(days=n) for n in range(DAYS)]
    events = pa.concat_tables([generator.events(day) for day in days])
    reported = [START + timedelta(days=n) for n in range(7, DAYS)]
    labels = pa.concat_tables([generator.labels(day) for day in reported])
    closed = events.filter(pc.less(events["event_time"], pa.scalar(midnight(days[-2]), pa.timestamp("us", "UTC"))))
    disputes = pa.table(
        {
            "transaction_id": closed["transaction_id"],
            "closed_at": pc.add(closed["event_time"], pa.scalar(timedelta(days=2), pa.duration("us"))),
            "is_disputed": pc.greater(closed["amount"], 90.0),
        }
    )
    spans = {"events": (days, events), "labels": (reported, labels), "disputes": (days[2:], disputes)}
    affected, versions = None, {}
    for feed, (of, rows) in spans.items():
        path = land_table(rows, Path(settings.landing), SOURCE, feed, Days(start=of[0], end=of[-1] + timedelta(days=1)))
        inputs = m.IngestInputs(source=SOURCE, feed=feed, partition=path.stem, uri=str(path))
        result = ingest.run(inputs, settings)
        affected, versions = affected or result.affected, result.table_versions
    features.run(m.FeaturesInputs(source=SOURCE, days=affected, table_versions=versions), settings)


def test_one_ingest_serves_both_and_each_is_trained_and_monitored(tmp_path: Path) -> None:
    tracking = f"sqlite:///{tmp_path}/mlflow.db"
    settings = Settings(home=tmp_path / "home", tracking_uri=tracking, **two_models(tmp_path))
    land(settings)
    tables = ("events", "labels", "disputes", "customer_features", "terminal_features")
    before = Lake(settings.lake, SOURCE).versions(*tables)
    assert set(before) == set(tables)
    datasets = {}
    for model in (MODEL, OTHER):
        made = dataset.run(m.DatasetInputs(model=model), settings)
        inputs = m.TrainInputs(model=model, estimator="logistic_regression", dataset_uri=made.uri, seed=made.seed)
        trained, registry = train.run(inputs, settings), Registry(tracking)
        version = registry.register(model, trained.run_id, trained.digest, {})
        registry.set_alias(model, CHAMPION, version.version)
        datasets[model] = made
    assert datasets[OTHER].feature_names == CHOSEN
    assert len(datasets[MODEL].feature_names) == 17
    assert datasets[OTHER].as_of > datasets[MODEL].as_of - timedelta(days=7)
    assert "disputes" not in datasets[MODEL].table_versions
    assert "labels" not in datasets[OTHER].table_versions
    for model in (MODEL, OTHER):
        watched = drift.run(m.DriftInputs(model=model), settings)
        assert (watched.outcome, watched.champion_version) == ("measured", 1)
        assert {*watched.columns, *watched.short_of_history} >= set(datasets[model].feature_names)
    assert Lake(settings.lake, SOURCE).versions(*tables) == before
