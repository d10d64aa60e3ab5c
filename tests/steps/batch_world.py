"""A lake that is filled by landed partitions, and a champion that scores its events in batch."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from local.landing import land_table
from testing.pipeline import Pipeline
from testing.serving_stack import artifact, registered
from tests.steps.ingest_helpers import GENERATOR, MODEL, SOURCE, day
from training.adapters.features import Features
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.registry import CHAMPION, Registry
from training.contract.messages import ScoreInputs, ScoreResult
from training.contract.model_spec import MODELS_DIR, load_model_spec
from training.domain.partitions import partition_days
from training.settings import Settings
from training.steps import score


class BatchWorld:
    def __init__(self, folder: Path, mlflow_database: Path, **scoring: Any) -> None:
        self.folder = folder
        shutil.copy(mlflow_database, folder / "mlflow.db")
        spec = yaml.safe_load((MODELS_DIR / f"{MODEL}.yaml").read_text())
        spec["scoring"] = {"when": "new_data", **scoring}
        (folder / "models").mkdir()
        (folder / "models" / f"{MODEL}.yaml").write_text(yaml.safe_dump(spec))
        self.settings = Settings(
            home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db", models_dir=folder / "models"
        )
        self.lake = Lake(self.settings.lake, SOURCE, MODEL)
        self.spec = load_model_spec(MODEL, self.settings.models_dir)
        self.registry = Registry(self.settings.tracking_uri)
        self._artifacts = 0

    def land(self, *days: int, name: str = "", rows: pa.Table | None = None) -> None:
        """Take in the events of these days, one partition each, or `rows` as the partition `name`."""
        given = {str(day(number)): GENERATOR.events(day(number)) for number in days}
        if rows is not None:
            given[name] = rows
        landing = Path(self.settings.landing)
        paths = [land_table(each, landing, SOURCE, "events", partition_days(at)) for at, each in given.items()]
        Pipeline(self.settings).ingest(SOURCE, paths)

    def promote(self, bias: float = 0.0, **faults: Any) -> int:
        """Make a new version the champion."""
        self._artifacts += 1
        features = Features(self.settings, self.spec)
        folder = self.folder / f"artifact{self._artifacts}"
        made = registered(self.settings, artifact(folder, features.names(), bias, features=features, **faults))
        self.registry.set_alias(MODEL, CHAMPION, made.version)
        return made.version

    def score(self, partition: str | None = None, run: str = "") -> ScoreResult:
        return score.run(ScoreInputs(model=MODEL, partition=partition, run=run), self.settings)

    def predictions(self) -> pa.Table:
        return self.lake.scan(PREDICTIONS).to_table()

    def answered(self, version: int | None = None) -> list[int]:
        """The ids of the events with a prediction, one for each prediction, sorted."""
        table = self.predictions()
        if version is not None:
            table = table.filter(pa.compute.equal(table["model_version"], version))
        return sorted(table["event"].combine_chunks().field("transaction_id").to_pylist())


def ids(*days: int) -> list[int]:
    """Of the events of these days, sorted."""
    return sorted(each for number in days for each in GENERATOR.events(day(number))["transaction_id"].to_pylist())
