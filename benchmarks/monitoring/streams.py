"""Generated payments with their features and labels, as training reads them, kept on disk."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import pandas as pd

from local.changes import Change
from local.generator import LABEL_DELAY, Generator, land
from testing.pipeline import Pipeline
from training import atomic
from training.adapters.features import Features
from training.adapters.lake import EVENTS, Lake
from training.adapters.tables import Events, Labels
from training.contract.base import Days, midnight
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.frames import LABEL, REPORTED_AT
from training.domain.labels import labelled
from training.settings import Settings

MODEL = "card_fraud"
START = date(2026, 1, 5)
#: The features of a day are made of the events of so many days before it: 30 of windows, 7 of late labels.
HISTORY_DAYS = 38
_MADE_BY = ("local/generator.py", "local/changes.py", "feature_repo/card_payments.*", "training/steps/features.py")


@dataclass(frozen=True)
class Streams:
    """The streams of one seed. `folder` keeps what has been generated."""

    folder: Path
    seed: int
    customers: int = 1000

    @cached_property
    def spec(self) -> ModelSpec:
        return load_model_spec(MODEL)

    @cached_property
    def names(self) -> list[str]:
        """The features, in the order in which a model gets them."""
        return Features(Settings(home=self.folder), self.spec).names()

    def unchanged(self, days: int) -> pd.DataFrame:
        """The payments of the first `days` days, in the order of their times."""
        return self._kept((), Days(start=START, end=START + timedelta(days=days)))

    def changed(self, changes: Sequence[Change], days: int) -> pd.DataFrame:
        """The payments of the `days` days since the first of the changes, which begin on the same day."""
        first = min(change.start for change in changes)
        return self._kept(changes, Days(start=first, end=first + timedelta(days=days)))

    def _kept(self, changes: Sequence[Change], days: Days) -> pd.DataFrame:
        named = " ".join([f"{self.customers} {days.start} {days.end}", *(each.model_dump_json() for each in changes)])
        name = f"{self.seed}-{hashlib.sha256((named + _made_by()).encode()).hexdigest()[:16]}.parquet"
        path = self.folder / name
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic.replacing(path) as draft:
                self._made(changes, days).to_parquet(draft, compression="zstd")
        return pd.read_parquet(path)

    def _made(self, changes: Sequence[Change], days: Days) -> pd.DataFrame:
        source, spec = self.spec.source.name, self.spec
        generator = Generator(self.seed, self.customers, 2 * self.customers, changes)
        since = max(START, days.start - timedelta(days=HISTORY_DAYS))
        with tempfile.TemporaryDirectory(prefix="perennial-", dir=self.folder) as home:
            settings = Settings(home=Path(home), git_sha="benchmark")
            made = Days(start=since, end=days.end)
            reported = Days(start=since + LABEL_DELAY, end=days.end + LABEL_DELAY)
            landing = Path(settings.landing)
            files = [
                land(generator, landing, source, "events", made),
                land(generator, landing, source, "labels", reported),
            ]
            Pipeline(settings).ingest(source, files)
            lake = Lake(settings.lake, source, spec.name)
            versions = lake.versions(EVENTS, spec.label_spec.feed, *spec.source.entities)
            events = Events(lake, spec.source, versions[EVENTS]).within(days)
            events = events.sort_values(spec.source.id_column, ignore_index=True)
            horizon = reported.end + timedelta(days=1)
            known = Labels(lake, spec, versions[spec.label_spec.feed]).known_at(horizon, events[spec.source.id_column])
            rows = labelled(events, known, spec, midnight(horizon))
            found = Features(settings, spec).historical(rows, versions)
        columns = [spec.source.id_column, spec.source.events.time_column, *spec.entity_columns, LABEL, REPORTED_AT]
        return found[list(dict.fromkeys([*columns, *self.names]))].astype(dict.fromkeys(self.names, "float32"))


def _made_by() -> str:
    """The code and the definitions that decide a stream's rows: changed, it is made again."""
    root = Path(__file__).parents[2]
    paths = sorted(path for pattern in _MADE_BY for path in root.glob(pattern))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "perennial" / "monitoring"
