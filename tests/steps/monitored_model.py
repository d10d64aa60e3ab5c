"""A small world to watch: 12 weeks of payments, a champion trained on the quiet part, inflation in the last week."""

import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa

from local.generator import Change, Generator
from testing.serving_stack import changed
from training.adapters.lake import Lake
from training.adapters.registry import CHAMPION, ModelVersion, Registry
from training.contract.base import Days
from training.contract.messages import DatasetInputs, DatasetResult, FeaturesInputs, TrainInputs
from training.settings import Settings
from training.steps import dataset, features, train

SOURCE, MODEL = "card_payments", "card_fraud"
START = date(2026, 1, 5)
#: Trained as of QUIET; amounts doubled from QUIET on; the last events are those of the day before DRIFTED.
QUIET, DRIFTED = START + timedelta(days=77), START + timedelta(days=84)


@dataclass(frozen=True)
class MonitoredModel:
    settings: Settings
    lake: Lake
    champion: ModelVersion
    dataset: DatasetResult

    @property
    def reference(self) -> Path:
        return Path(self.dataset.uri) / "reference.parquet"


def copied(world: MonitoredModel, folder: Path) -> Settings:
    """A copy of the world's state, for a test that writes to its lake, its ledger or its registry."""
    shutil.copytree(world.settings.home, folder / "home")
    shutil.copy(world.settings.tracking_uri.removeprefix("sqlite:///"), folder / "mlflow.db")
    return changed(world.settings, home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db")


def settings_in(folder: Path) -> Settings:
    return Settings(home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db")


def land(settings: Settings, days: Days, changes: tuple[Change, ...] = (), customers: int = 500) -> Lake:
    """Events and labels of `days`, straight into the lake."""
    generator, lake = (
        Generator(seed=1, customers=customers, terminals=1000, changes=changes),
        Lake(settings.lake, SOURCE, MODEL),
    )
    each = [days.start + timedelta(days=i) for i in range(len(days))]
    for table, made in (("events", generator.events), ("labels", generator.labels)):
        rows = pa.concat_tables([made(day) for day in each])
        rows = rows.append_column("partition", pa.array(["all"] * rows.num_rows))
        lake.replace(table, rows, "partition = 'all'", ["partition"])
    return lake


def build(folder: Path) -> MonitoredModel:
    """Takes about 15 s."""
    settings = settings_in(folder)
    inflation = Change(kind="amount_inflation", start=QUIET, strength=2.0)
    lake = land(settings, Days(start=START, end=DRIFTED), (inflation,))
    days = Days(start=START, end=DRIFTED + timedelta(days=1))
    versions = lake.versions("events", "labels")
    features.run(FeaturesInputs(source=SOURCE, days=days, table_versions=versions), settings)
    made = dataset.run(DatasetInputs(model=MODEL, as_of=QUIET), settings)
    fit = TrainInputs(model=MODEL, estimator="logistic_regression", dataset_uri=made.uri, seed=made.seed)
    trained = train.run(fit, settings)
    registry = Registry(settings.tracking_uri)
    version = registry.register(MODEL, trained.run_id, trained.digest, {})
    registry.set_alias(MODEL, CHAMPION, version.version)
    return MonitoredModel(settings, lake, version, made)
