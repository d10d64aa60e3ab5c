"""The steps of a backfilled range are killed with SIGKILL and run again: each day is in the lake exactly once."""

import random
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from local.generator import Generator
from local.generator import land as land_days
from testing.step_process import killed_after
from training.adapters.lake import EVENTS, Lake
from training.contract.base import Days
from training.contract.messages import FeaturesInputs, IngestInputs
from training.settings import Settings
from training.steps import features, ingest

pytestmark = pytest.mark.long

SOURCE, START, DAYS = "card_payments", date(2026, 1, 5), 6
#: Of each table, the columns of which there is one row.
KEYS = {
    EVENTS: ["transaction_id"],
    "labels": ["transaction_id", "reported_at"],
    "customer_features": ["customer_id", "day"],
    "terminal_features": ["terminal_id", "day"],
}


def landed(folder: Path) -> tuple[Settings, list[IngestInputs]]:
    """A landing folder with events by day and labels in one file, and the ingest steps of the range, in order."""
    made = Settings(home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db")
    generator, landing = Generator(seed=1, customers=200, terminals=400), Path(made.landing)
    days = [Days(start=start, end=start + timedelta(days=1)) for start in _days(DAYS)]
    files = [("events", each) for each in days]
    files.append(("labels", Days(start=START + timedelta(days=2), end=START + timedelta(days=DAYS))))
    steps = []
    for feed, span in files:
        before = set((landing / SOURCE / feed).glob("*"))
        land_days(generator, landing, SOURCE, feed, span)
        (file,) = set((landing / SOURCE / feed).glob("*.parquet")) - before
        steps.append(IngestInputs(source=SOURCE, feed=feed, partition=file.stem, uri=str(file)))
    return made, steps


def _days(number: int) -> list[date]:
    return [START + timedelta(days=n) for n in range(number)]


def computed(settings: Settings) -> FeaturesInputs:
    versions = Lake(settings.lake, SOURCE).versions(EVENTS, "labels")
    days = Days(start=START + timedelta(days=1), end=START + timedelta(days=DAYS + 1))
    return FeaturesInputs(source=SOURCE, days=days, table_versions=versions)


def rows(settings: Settings, table: str) -> pd.DataFrame:
    found = Lake(settings.lake, SOURCE).scan(table).to_table().to_pandas()
    return found.sort_values(KEYS[table], ignore_index=True)


def test_steps_killed_in_the_middle_of_a_range_and_run_again_leave_each_day_once(tmp_path: Path) -> None:
    quiet, steps = landed(tmp_path / "quiet")
    # The first process starts the server of the others.
    killed_after(ingest.run, (steps[0], quiet), None)
    whole = [killed_after(ingest.run, (step, quiet), None) for step in steps[1:]]
    whole_features = killed_after(features.run, (computed(quiet), quiet), None)

    chance = random.Random(7)
    settings, steps = landed(tmp_path / "killed")
    for step in steps:
        killed_after(ingest.run, (step, settings), chance.uniform(0.2, 1.0) * max(whole))
        # As Airflow does after the task was lost: the same step, with the same inputs.
        killed_after(ingest.run, (step, settings), None)
    for _ in range(3):
        killed_after(features.run, (computed(settings), settings), chance.uniform(0.2, 1.0) * whole_features)
    killed_after(features.run, (computed(settings), settings), None)

    for table, keys in KEYS.items():
        found = rows(settings, table)
        assert not found.duplicated(keys).any(), table
        pd.testing.assert_frame_equal(found, rows(quiet, table))
    days = rows(settings, EVENTS)["event_time"].dt.date
    assert sorted(days.unique()) == _days(DAYS)
