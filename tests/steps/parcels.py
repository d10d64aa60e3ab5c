"""A small source without feature tables, and two champions that learn from it: a regression and a multiclass task.

Parcels take hours that depend on distance and weight; on rough roads they cannot be told as well. What became of them
is early, due or late. Each parcel has a note as a list of floats. Nothing lands through ingest: events and labels are
written straight into the lake, so that tests can put others in their place.
"""

import functools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from testing.pipeline import Pipeline
from testing.spec_files import own_spec_files, raw_specs
from tests.steps.prediction_tables import prediction_table
from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import CHAMPION, Registry
from training.contract.base import Days, TableVersions
from training.contract.messages import Snapshot
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.encoding import encoded
from training.settings import Settings

SOURCE, LABELS = "parcels", "labels"
DURATION, OUTCOME = "parcel_duration", "parcel_outcome"
START, PER_DAY, SENDERS, NOTE = date(2026, 1, 5), 150, 60, 6
DELAY, WINDOW = 7, 7
#: The champions are trained as of TRAINED: 14 days of training, the delay, a week of holdout, and the delay again.
TRAINED = START + timedelta(days=14 + DELAY + 7 + DELAY)
HOLDOUT = Days.ending(TRAINED - timedelta(days=DELAY), 7)
#: Monitors look as of LOOK: three windows after the holdout have their labels, and the newest has none yet.
LOOK = HOLDOUT.end + timedelta(days=3 * WINDOW + DELAY)
MATURED, NEWEST = Days.ending(LOOK - timedelta(days=DELAY), WINDOW), Days.ending(LOOK, WINDOW)
OUTCOMES = ("early", "due", "late")

Change = Callable[[pd.DataFrame], pd.DataFrame]


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def source_spec() -> dict[str, Any]:
    events = {
        "parcel": {"type": "int64", "unique": True},
        "sent_at": {"type": "timestamp"},
        "sender": {"type": "int64"},
        "distance": {"type": "float64"},
        "weight": {"type": "float64"},
        "road": {"type": "string", "values": ["smooth", "rough"]},
        "note": {"type": f"list(float32, {NOTE})", "nullable": True},
    }
    labels = {
        "parcel": {"type": "int64", "unique": True},
        "hours": {"type": "float64"},
        "outcome": {"type": "string", "values": list(OUTCOMES)},
        "reported_at": {"type": "timestamp"},
    }
    return {
        "name": SOURCE,
        "title": "Parcels",
        "owner": "someone",
        "feeds": {
            "events": {"time_column": "sent_at", "id_column": "parcel", "columns": events},
            LABELS: {"time_column": "reported_at", "id_column": "parcel", "columns": labels},
        },
        "labels": {name: {"feed": LABELS, "delay_days": DELAY} for name in ("hours", "outcome")},
        "features": {"event_columns": ["distance", "weight", "road"]},
    }


def model_spec(name: str) -> dict[str, Any]:
    model, _ = raw_specs()
    given: dict[str, Any] = {
        DURATION: {
            "label": "hours",
            "task": {"kind": "regression", "interval": {"coverage": 0.9}},
            "evaluation": {"limits": {"rmse": 100.0}, "entity": "sender"},
        },
        OUTCOME: {
            "label": "outcome",
            "task": {"kind": "multiclass"},
            "evaluation": {"limits": {"log_loss": 2.0}, "entity": "sender"},
        },
    }[name]
    model |= {"name": name, "source": SOURCE, "features": "all", **given}
    estimators = {"hist_gradient_boosting": {"max_iter": 40, "min_samples_leaf": 40}}
    model["training"] = {"window_days": 14, "holdout_days": 7, "minimum_rows": 100, "estimators": estimators}
    model["monitoring"] = {"window_days": WINDOW, "minimum_rows": 200, "minimum_class_rows": 20, "embeddings": ["note"]}
    model["rollout"] = {"sticky_by": "sender"}
    model["retraining"] = {}
    return model


def parcels(days: Days, seed: int, first: int = 0) -> pd.DataFrame:
    """Events of `days` with their labels, numbered from `first` on."""
    random, count = np.random.default_rng(seed), PER_DAY * len(days)
    seconds = np.sort(random.integers(0, 86_400 * len(days), count))
    found = pd.DataFrame(
        {
            "parcel": first + np.arange(count),
            "sent_at": pd.Timestamp(midnight(days.start)) + pd.to_timedelta(seconds, unit="s"),
            "sender": random.integers(0, SENDERS, count),
            "distance": random.uniform(0, 1000, count),
            "weight": random.lognormal(1, 0.5, count),
            "road": np.where(random.random(count) < 0.2, "rough", "smooth"),
            "note": list(random.normal(size=(count, NOTE)).astype(np.float32)),
        }
    )
    return delivered(found, random)


def delivered(events: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """With what became of them: hours, outcome and when that was reported."""
    spread = np.where(events["road"] == "rough", 16.0, 3.0)
    hours = 10 + events["distance"] / 20 + 2 * events["weight"] + random.normal(0, 1, len(events)) * spread
    outcome = np.array(OUTCOMES, dtype=object)[np.digitize(hours, [30, 50])]
    return events.assign(hours=hours, outcome=outcome, reported_at=events["sent_at"] + pd.Timedelta(days=1))


@dataclass(frozen=True)
class Champion:
    model: OnnxModel
    answered: int
    """The version of the log of predictions with what it answers to all rows."""


@dataclass(frozen=True)
class Parcels:
    """The lake of the source at `versions`, and both champions, which are versions 1."""

    settings: Settings
    lakes: Mapping[str, Lake]
    rows: pd.DataFrame
    """All events with their labels."""
    versions: TableVersions
    champion: Callable[[str], Champion]
    """Of a model. It is trained when it is first asked for."""

    def spec(self, model: str) -> ModelSpec:
        return load_model_spec(model, self.settings.models_dir, self.settings.feature_repo)

    def snapshot(
        self, model: str, rows: pd.DataFrame | None = None, as_of: date = LOOK, scores: Change | None = None
    ) -> Snapshot:
        """The lake with `rows` in place of all events and labels (None: as it is), and with what the champion answers
        to those after its holdout. `scores`: changes the answers, in the columns of the outputs."""
        if rows is None and scores is None:
            return self._snapshot(self.versions, self.champion(model).answered, as_of)
        champion = self.champion(model).model
        versions = self.versions if rows is None else write(self.lakes[model], self.spec(model), rows)
        answered = self.rows if rows is None else rows
        log = answers(champion, self.spec(model), answered, scores)
        return self._snapshot(versions, self.lakes[model].overwrite(PREDICTIONS, log, ["day"]), as_of)

    def labelled(self, model: str, rows: pd.DataFrame) -> Snapshot:
        """As `snapshot` with `rows` that differ in their labels alone: the answers to them are the same."""
        answered = self.champion(model).answered
        return self._snapshot(write(self.lakes[model], self.spec(model), rows), answered, LOOK)

    @staticmethod
    def _snapshot(versions: TableVersions, predictions: int, as_of: date) -> Snapshot:
        return Snapshot(as_of=as_of, table_versions={**versions, PREDICTIONS: predictions}, champion_version=1)


def answers(model: OnnxModel, spec: ModelSpec, rows: pd.DataFrame, change: Change | None = None) -> pa.Table:
    """The log of what `model` answers to the rows after its holdout."""
    asked = rows[rows["sent_at"] >= midnight(HOLDOUT.end)].reset_index(drop=True)
    columns = model.metadata.columns
    features = encoded({column.name: asked[column.name].to_numpy() for column in columns}, columns)
    logged = pd.DataFrame(model.task.logged(model.score(features)), columns=model.metadata.outputs)
    if change is not None:
        logged = change(asked.join(logged))[logged.columns]
    outputs = [list(zip(logged.columns, row, strict=True)) for row in logged.to_numpy(float).tolist()]
    values = [list(zip(model.metadata.feature_names, row, strict=True)) for row in features.tolist()]
    given = asked.assign(score=0.0, outputs=pd.Series(outputs, dtype=object), features=pd.Series(values))
    return prediction_table(spec, given, predicted_at=asked["sent_at"])


def write(lake: Lake, spec: ModelSpec, rows: pd.DataFrame) -> TableVersions:
    """Put these rows into the tables of events and labels. Returns their versions."""
    found = {}
    moment, notes = pa.timestamp("us", "UTC"), pa.list_(pa.float32())
    for feed, names in ((EVENTS, list(spec.request_columns)), (LABELS, ["parcel", "hours", "outcome", "reported_at"])):
        given = {"sent_at": moment, "reported_at": moment, "note": notes}
        columns = {name: pa.array(rows[name], given.get(name), from_pandas=name != "note") for name in names}
        table = pa.table(columns | {"partition": ["all"] * len(rows)})
        found[feed] = lake.replace(feed, table, "partition = 'all'", ["partition"])
    return found


def build(folder: Path, mlflow_database: Path) -> Parcels:
    """The source alone: the champions are trained when they are asked for, on the rows as they are written here."""
    shutil.copy(mlflow_database, folder)
    specs = own_spec_files(folder, [model_spec(DURATION), model_spec(OUTCOME)], source_spec())
    settings = Settings(home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db", **specs)
    rows = parcels(Days(start=START, end=LOOK), seed=1)
    lakes = {name: Lake(settings.lake, SOURCE, name) for name in (DURATION, OUTCOME)}
    spec = load_model_spec(DURATION, settings.models_dir, settings.feature_repo)
    versions, pipeline = write(lakes[DURATION], spec, rows), Pipeline(settings)

    def train(name: str) -> Champion:
        snapshot = Snapshot(as_of=TRAINED, table_versions=versions)
        made = pipeline.step("dataset", model=name, snapshot=snapshot)
        given = {"model": name, "dataset_uri": made.uri, "seed": 1, "estimator": "hist_gradient_boosting"}
        trained = pipeline.step("train", **given)
        registry = Registry(settings.tracking_uri)
        version = registry.register(name, trained.run_id, trained.digest, {})
        registry.set_alias(name, CHAMPION, version.version)
        model = OnnxModel.load(trained.artifact_uri)
        log = answers(model, load_model_spec(name, settings.models_dir, settings.feature_repo), rows)
        return Champion(model, lakes[name].overwrite(PREDICTIONS, log, ["day"]))

    return Parcels(settings, lakes, rows, versions, functools.cache(train))
