"""A small random world of payments, and card_fraud's features computed from their definitions, payment by payment."""

from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa

from training.adapters.lake import Lake
from training.contract.base import Days, TableVersions
from training.contract.messages import FeaturesInputs
from training.settings import Settings
from training.steps import features

START = date(2026, 1, 1)
SOURCE, MODEL = "card_payments", "card_fraud"
TIME = pa.timestamp("us", tz="UTC")


def day(n: int) -> date:
    """The n-th day of the world, from 0."""
    return START + timedelta(days=n)


def midnight(n: int) -> datetime:
    return datetime.combine(day(n), time(), UTC)


def payments(
    days: int, per_day: int = 12, entities: int = 6, seed: int = 0, fraud: float = 0.2, delays: tuple[int, ...] = (7,)
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Events and their labels; a label comes `delays` days after the payment, drawn for each; -1: it never comes."""
    rng = np.random.default_rng(seed)
    n = days * per_day
    seconds = np.sort(rng.integers(0, days * 86_400, n))
    times = (pd.Timestamp(START, tz="UTC") + pd.to_timedelta(seconds, unit="s")).as_unit("us")
    events = pd.DataFrame(
        {
            "transaction_id": np.arange(n),
            "event_time": times,
            "customer_id": rng.integers(0, entities, n),
            "terminal_id": rng.integers(0, entities, n) + 100,
            "amount": rng.integers(1, 20_000, n) / 100,
        }
    )
    delay = rng.choice(delays, n)
    labels = pd.DataFrame(
        {
            "transaction_id": events["transaction_id"],
            "is_fraud": (rng.random(n) < fraud).astype(int),
            "reported_at": events["event_time"] + pd.to_timedelta(delay, unit="D"),
        }
    )
    return events, labels[delay >= 0].reset_index(drop=True)


def with_corrections(labels: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Half of the labels turned round one to twenty days after they were reported, and half of those turned back."""
    rng = np.random.default_rng(seed)
    found, last = [labels], labels
    for _ in range(2):
        last = last[rng.random(len(last)) < 0.5]
        later = pd.to_timedelta(rng.integers(1, 21, len(last)), unit="D")
        last = last.assign(is_fraud=1 - last["is_fraud"], reported_at=last["reported_at"] + later)
        found.append(last)
    return pd.concat(found, ignore_index=True)


def put(settings: Settings, events: pd.DataFrame, labels: pd.DataFrame, partition: str = "all") -> TableVersions:
    """The rows into the lake, as one partition. Returns the versions."""
    lake = Lake(settings.lake, SOURCE, MODEL)
    for table, rows in (("events", events), ("labels", labels)):
        arrow = pa.Table.from_pandas(rows.assign(partition=partition), preserve_index=False)
        schema = pa.schema(
            [field.with_type(TIME) if pa.types.is_timestamp(field.type) else field for field in arrow.schema]
        )
        lake.replace(table, arrow.cast(schema), f"partition = '{partition}'", ["partition"])
    return lake.versions("events", "labels")


def compute(settings: Settings, first: int, end: int) -> TableVersions:
    """The feature rows of days [first, end) by the features step, over the newest events and labels."""
    versions = Lake(settings.lake, SOURCE, MODEL).versions("events", "labels")
    inputs = FeaturesInputs(source=SOURCE, days=Days(start=day(first), end=day(end)), table_versions=versions)
    return features.run(inputs, settings).table_versions


def rows_of(settings: Settings, table: str, version: int | None = None) -> pd.DataFrame:
    rows = Lake(settings.lake, SOURCE, MODEL).scan(table, version).to_table().to_pandas()
    return rows.sort_values([rows.columns[0], "day"], ignore_index=True)


def customer_features(events: pd.DataFrame, customer: int, at: datetime) -> dict[str, float]:
    """What is known of `customer` at midnight `at`, by definition."""
    found = {}
    own = events[(events["customer_id"] == customer) & (events["event_time"] < at)]
    for window in (1, 7, 30):
        recent = own[own["event_time"] >= at - timedelta(days=window)]
        found[f"customer_count_{window}d"] = float(len(recent))
        found[f"customer_mean_{window}d"] = float(recent["amount"].mean()) if len(recent) else 0.0
    return found


def terminal_features(events: pd.DataFrame, labels: pd.DataFrame, terminal: int, at: datetime) -> dict[str, float]:
    """What is known of `terminal` at midnight `at`, by definition."""
    found = {}
    reported = labels[labels["reported_at"] < at].sort_values("reported_at")
    newest = reported.drop_duplicates("transaction_id", keep="last")
    known = events[events["terminal_id"] == terminal].merge(newest, on="transaction_id")
    known = known[known["event_time"] < at - timedelta(days=7)]
    for window in (1, 7, 30):
        recent = known[known["event_time"] >= at - timedelta(days=7 + window)]
        found[f"terminal_count_{window}d"] = float(len(recent))
        found[f"terminal_fraud_share_{window}d"] = float(recent["is_fraud"].mean()) if len(recent) else 0.0
    return found


def request_features(event: pd.Series, customer: dict[str, float]) -> dict[str, float]:
    """The features that a payment brings itself, by definition."""
    ratios = {
        f"amount_over_mean_{w}": event["amount"] / customer[f"customer_mean_{w}"]
        if customer[f"customer_mean_{w}"]
        else 1.0
        for w in ("7d", "30d")
    }
    when = event["event_time"]
    return {
        "payment_amount": event["amount"],
        "weekend": float(when.strftime("%a") in ("Sat", "Sun")),
        "night": float(when.strftime("%H") <= "06"),
        **ratios,
    }


def expected(events: pd.DataFrame, labels: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The features of `rows` (events), computed from the definitions; a column per feature."""
    found = []
    for _, event in rows.iterrows():
        at = event["event_time"].floor("D").to_pydatetime()
        customer = customer_features(events, event["customer_id"], at)
        terminal = terminal_features(events, labels, event["terminal_id"], at)
        found.append(customer | terminal | request_features(event, customer))
    return pd.DataFrame(found, index=rows.index)
