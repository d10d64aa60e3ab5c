"""A lake that is filled with partitions, and a champion that scores their events in batch."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from testing.pipeline import Pipeline
from testing.serving_artifacts import artifact
from testing.serving_stack import registered
from testing.spec_files import Raw, spec_files
from tests.steps.ingest_helpers import GENERATOR, MODEL, SOURCE, day
from training.adapters.features import Features
from training.adapters.lake import EVENTS, PREDICTIONS, Lake
from training.adapters.registry import CHAMPION, Registry
from training.contract.base import Days
from training.contract.messages import ScoreInputs, ScoreResult
from training.contract.model_spec import load_model_spec
from training.domain.arrow_types import feed_schema
from training.domain.partitions import partition_days
from training.settings import Settings
from training.steps import score
from training.steps.ingest.writing import Partition


class BatchWorld:
    """`change` edits the fields of the model spec and of the source spec; `scoring` are fields of that section."""

    def __init__(
        self,
        folder: Path,
        mlflow_database: Path,
        change: Callable[[Raw, Raw], Any] = lambda model, source: None,
        **scoring: Any,
    ) -> None:
        self.folder = folder
        shutil.copy(mlflow_database, folder / "mlflow.db")

        def changed(model: Raw, source: Raw) -> None:
            model["scoring"] = {"when": "new_data", **scoring}
            change(model, source)

        files = spec_files(folder, changed)
        self.settings = Settings(home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db", **files)
        self.lake = Lake(self.settings.lake, SOURCE, MODEL)
        self.spec = load_model_spec(MODEL, self.settings.models_dir, self.settings.feature_repo)
        self.registry = Registry(self.settings.tracking_uri)
        self._artifacts = self._deliveries = 0

    def land(self, *days: int, name: str = "", rows: pa.Table | None = None) -> None:
        """Write the events of these days, one partition each, or `rows` as the partition `name`, and their features.

        As ingest writes them, which would validate them first: that takes longer than to score them.
        """
        given = {str(day(number)): GENERATOR.events(day(number)) for number in days}
        if rows is not None:
            given[name] = rows
        feed = self.spec.source.events
        for at, each in given.items():
            self._deliveries += 1
            Partition(self.lake, EVENTS, at, feed).write([each.select(feed_schema(feed).names)], self._deliveries)
        if self.spec.source.entities:
            covered = [partition_days(at) for at in given]
            last = max(each.end for each in covered) + timedelta(days=1)
            affected = Days(start=min(each.start for each in covered), end=last)
            versions = self.lake.versions(EVENTS)
            Pipeline(self.settings).step("features", source=SOURCE, days=affected, table_versions=versions)

    def promote(self, bias: float = 0.0, old: bool = False) -> int:
        """Make a new version the champion. `old`: its artifact is from before features were part of one."""
        self._artifacts += 1
        features = Features(self.settings, self.spec)
        folder = self.folder / f"artifact{self._artifacts}"
        made = registered(self.settings, artifact(folder, features.names(), bias, features=None if old else features))
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
