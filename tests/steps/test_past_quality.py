"""Which past events a backtest measures models on: those that evaluation counts, with their labels."""

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from testing.spec_files import Raw, spec_files
from tests.feature_repo.payments_and_features import MODEL, day, midnight, payments, put
from training.contract.base import Days
from training.settings import Settings
from training.steps.backtest.own_state import Place
from training.steps.backtest.past_events import PastEvents, mondays
from training.steps.backtest.past_quality import counted, known_days

DAYS, WINDOW = 32, Days(start=day(21), end=day(28))


def past(folder: Path, events: pd.DataFrame, labels: pd.DataFrame, exclude: bool, id_type: str = "int64") -> PastEvents:
    """A backtest's past with the events of each week, without features."""

    def change(model: Raw, source: Raw) -> None:
        model["training"]["window_days"] = 7
        model["evaluation"]["exclude_known_entities"] = exclude
        for feed in source["feeds"].values():
            feed["columns"]["transaction_id"] = {"type": id_type, "unique": True}

    settings = Settings(home=folder / "home", **spec_files(folder, change))
    found = PastEvents(Place(settings, MODEL, put(settings, events, labels), day(60)))
    (found.place.folder / "events").mkdir()
    for week in mondays(Days(start=day(0), end=day(DAYS))):
        since = pd.Timestamp(week, tz="UTC")
        times = events["event_time"]
        rows = events[(times >= since) & (times < since + timedelta(days=7))]
        rows.to_parquet(found.place.folder / "events" / f"{week}.parquet", index=False)
    return found


def test_entities_whose_frauds_were_known_are_left_out_for_as_long_as_in_a_holdout(tmp_path: Path) -> None:
    events, labels = payments(DAYS, entities=60, fraud=0.04)
    known = past(tmp_path, events, labels, exclude=True)
    assert known_days(known.spec) == 14
    frauds = events.merge(labels[labels["is_fraud"] == 1], on="transaction_id")
    inside = events[(events["event_time"] >= midnight(21)) & (events["event_time"] < midnight(28))]

    def expected(since: int) -> set[int]:
        """The events of entities without a fraud from day `since` on that was known when their day began."""
        counts = frauds[frauds["event_time"] >= midnight(since)]
        left_out = (
            ((counts["customer_id"] == row.customer_id) & (counts["reported_at"] < row.event_time.floor("D"))).any()
            for row in inside.itertuples()
        )
        return {number for number, out in zip(inside["transaction_id"], left_out, strict=True) if not out}

    assert set(counted(known, WINDOW)["transaction_id"]) == expected(21 - 14)
    assert expected(0) < expected(21 - 14) < expected(21)


def test_all_labelled_events_count_when_the_spec_leaves_nobody_out(tmp_path: Path) -> None:
    events, labels = payments(DAYS, entities=6, fraud=0.3)
    every = past(tmp_path, events, labels, exclude=False)
    assert known_days(every.spec) == 0
    found = counted(every, WINDOW)
    inside = events[(events["event_time"] >= midnight(21)) & (events["event_time"] < midnight(28))]
    assert list(found["transaction_id"]) == list(inside["transaction_id"])
    assert list(found["_label"]) == list(labels.loc[inside.index, "is_fraud"])


@pytest.mark.parametrize("id_type", ["int64", "string"])
def test_days_without_events_have_none_that_count(tmp_path: Path, id_type: str) -> None:
    events, labels = (
        rows.astype({"transaction_id": {"int64": int, "string": str}[id_type]}) for rows in payments(DAYS, fraud=0.3)
    )
    quiet = past(tmp_path, events, labels, exclude=False, id_type=id_type)
    empty = Days(start=day(60), end=day(63))
    for week in mondays(empty):
        quiet.compute(week)
    assert counted(quiet, empty).empty
