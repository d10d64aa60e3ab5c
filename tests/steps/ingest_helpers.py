"""A landing folder, and the step that takes what lands there into the lake."""

import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from local.generator import Generator
from local.landing import land_table
from tests.feature_repo.written_by_hand import BY_HAND
from training.adapters.lake import Lake
from training.contract.messages import IngestInputs, IngestResult
from training.domain.partitions import partition_days
from training.settings import Settings
from training.steps.ingest import run

SOURCE, MODEL = "card_payments", "card_fraud"
GENERATOR = Generator(customers=100, terminals=200)
FIRST = date(2026, 1, 5)


def day(number: int) -> date:
    """The day `number` days after the first."""
    return FIRST + timedelta(days=number)


class Deliveries:
    """A landing folder and the step that empties it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lake = Lake(settings.lake, SOURCE, MODEL)

    def respec(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Go on under a spec whose feeds were put through `change`."""
        spec = yaml.safe_load(Path(self.settings.feature_repo, f"{SOURCE}.yaml").read_text())
        # Declared features name columns of the feeds, which `change` may take away. Ingest reads no features.
        spec["features"] = yaml.safe_load((BY_HAND / f"{SOURCE}.yaml").read_text())["features"]
        change(spec["feeds"])
        repo = Path(self.settings.home, "repo")
        repo.mkdir(parents=True, exist_ok=True)
        (repo / f"{SOURCE}.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
        self.settings = self.settings.model_copy(update={"feature_repo": repo})

    def land(self, rows: pa.Table, name: str, feed: str = "events") -> IngestInputs:
        path = land_table(rows, Path(self.settings.landing), SOURCE, feed, partition_days(name))
        return IngestInputs(source=SOURCE, feed=feed, partition=name, uri=str(path))

    def deliver(self, rows: pa.Table, name: str, feed: str = "events") -> IngestResult:
        return run(self.land(rows, name, feed), self.settings)

    def events(self, number: int) -> IngestResult:
        return self.deliver(GENERATOR.events(day(number)), str(day(number)))

    def labels(self, number: int) -> IngestResult:
        return self.deliver(GENERATOR.labels(day(number)), str(day(number)), "labels")

    def rows(self, table: str) -> list[dict]:
        if self.lake.version(table) is None:
            return []
        rows = self.lake.scan(table).to_table()
        return sorted(rows.to_pylist(), key=lambda row: json.dumps(row, default=str, sort_keys=True))


def changed(rows: pa.Table, column: str, change: Callable[[list], list]) -> pa.Table:
    """`rows` with the values of `column` put through `change`."""
    at = rows.column_names.index(column)
    return rows.set_column(at, column, pa.array(change(rows[column].to_pylist()), rows[column].type))


def first(*values: object) -> Callable[[list], list]:
    return lambda column: [*values, *column[len(values) :]]
