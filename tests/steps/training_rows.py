"""A small dataset on disk, as the dataset step writes it, whose frauds can be learnt."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.adapters.datasets import DEFINITIONS, REQUESTS, requests
from training.contract.base import Days
from training.contract.feature_definitions import (
    FeatureDefinitions,
    RequestViewDefinition,
    ViewColumn,
    ViewDefinition,
)
from training.contract.messages import DatasetResult, Split, TrainingWindow

NAMES = ["amount", "terminal_fraud_share_7d", "customer_count_7d", "night"]
START = date(2026, 1, 5)


def write_dataset(
    folder: Path,
    seed: int = 0,
    names: list[str] = NAMES,
    rows_per_day: int = 400,
    customers: pa.Array | None = None,
    whole_days: bool = False,
    windows: Sequence[TrainingWindow] = (),
    change: date | None = None,
) -> str:
    """7 days of training rows, 7 of holdout, and the reference. Frauds are large amounts or bad terminals.

    The customers are 200, or those of `customers` in turn. A day's rows lie in its first hour, or over `whole_days`.
    """
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    train, holdout = (
        _split(folder, name, start, random, names, rows_per_day, customers, whole_days)
        for name, start in _SPLITS.items()
    )
    pq.write_table(pq.read_table(train.uri, columns=names), folder / "reference.parquet")
    manifest = DatasetResult(
        dataset_id=f"{folder.name}-{seed}",
        uri=str(folder),
        as_of=holdout.days.end + timedelta(days=7),
        feature_service="card_fraud",
        feature_names=names,
        train=train,
        holdout=holdout,
        windows=list(windows),
        change=change,
        seed=seed,
        table_versions={"events": 3, "labels": 2, "customer_features": 1, "terminal_features": 1},
    )
    holdout_rows = pq.read_table(holdout.uri).to_pandas()
    looked_up = [name for name in names if name != "amount"]
    events = holdout_rows[["transaction_id", "event_time", "customer_id", "terminal_id"]].assign(amount=5.0)
    pq.write_table(requests(events, holdout_rows[looked_up]), folder / REQUESTS)
    Path(folder, DEFINITIONS).write_text(definitions(names).model_dump_json())
    Path(folder, "dataset.json").write_text(manifest.model_dump_json())
    return str(folder)


def definitions(names: list[str]) -> FeatureDefinitions:
    """All of `names` are of one view, but for `amount`, which a request view makes."""
    columns = tuple(ViewColumn(name=name, type="FLOAT") for name in names if name != "amount")
    made = RequestViewDefinition(
        name="request_features", features=("amount",), event_columns=("amount",), source_features=()
    )
    view = ViewDefinition(
        name="terminal_features", entity="terminal_id", entity_type="INT64", ttl_seconds=604_800, columns=columns
    )
    return FeatureDefinitions(views=(view,), request_views=(made,))


_SPLITS = {"train": START, "holdout": START + timedelta(days=14)}


def _split(
    folder: Path,
    name: str,
    start: date,
    random: np.random.Generator,
    names: list[str],
    rows_per_day: int,
    customers: pa.Array | None,
    whole_days: bool,
) -> Split:
    n = 7 * rows_per_day
    days = np.sort(random.integers(0, 7, n))
    midnight = datetime(start.year, start.month, start.day, tzinfo=UTC)
    columns = {
        "amount": random.lognormal(3, 1, n),
        "terminal_fraud_share_7d": np.where(random.random(n) < 0.05, random.random(n), 0),
        "customer_count_7d": random.integers(0, 30, n),
        "night": random.integers(0, 2, n),
    }
    odds = -5 + columns["amount"] / 40 + 6 * columns["terminal_fraud_share_7d"]
    fraud = random.random(n) < 1 / (1 + np.exp(-odds))
    table = {
        "transaction_id": np.arange(n),
        "event_time": pa.array(
            [
                midnight + timedelta(days=int(day), seconds=i * (6151 if whole_days else 1) % 86_400)
                for i, day in enumerate(days)
            ],
            pa.timestamp("us", tz="UTC"),
        ),
        "customer_id": random.integers(0, 200, n),
        "terminal_id": random.integers(0, 100, n),
        "is_fraud": fraud.astype(np.int64),
        **{column: columns[column].astype(np.float32) for column in names},
    }
    if name == "holdout":
        table["_excluded"] = random.random(n) < 0.1
    if customers is not None:
        table["customer_id"] = customers.take(pa.array(np.arange(n) % len(customers)))
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table(table), path)
    days_of = Days(start=start, end=start + timedelta(days=7))
    return Split(days=days_of, uri=str(path), rows=n, counts={"positive": int(fraud.sum())})
