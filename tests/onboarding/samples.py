"""A sample as a stranger would have it: sales of some shops, with columns that no spec would name so."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FIRST = datetime(2025, 3, 1)


def sales(days: int = 40, per_day: int = 60, seed: int = 7) -> dict[str, Any]:
    """Column → its values. `returned` (0 or 1), `rating` (a text) and `refund` (a number) can be learned."""
    random = np.random.default_rng(seed)
    rows = days * per_day
    seconds = np.sort(random.integers(0, 86_400, (days, per_day)), axis=1) + np.arange(days)[:, None] * 86_400
    price = np.round(random.gamma(2.0, 20.0, rows), 2)
    shop = random.integers(0, 40, rows)
    chance = 1 / (1 + np.exp(3.0 - price / 25 - (shop % 5) / 2))
    returned = (random.random(rows) < chance).astype(np.int64)
    return {
        "sale_id": np.arange(10_000, 10_000 + rows),
        "sold_at": [FIRST + timedelta(seconds=int(each)) for each in seconds.ravel()],
        "shop": [f"shop-{each:02d}" for each in shop],
        "channel": random.choice(["web", "phone", "till"], rows),
        "price": price,
        "items": random.integers(1, 6, rows),
        "returned": returned,
        "rating": np.where(returned == 1, "bad", np.where(price > 40, "fair", "good")),
        "refund": np.round(price * returned * 0.9 + random.normal(0, 1, rows), 2),
    }


def table(columns: dict[str, Any]) -> pa.Table:
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def write(folder: Path, columns: dict[str, Any] | pa.Table, name: str = "sample.parquet") -> Path:
    path = folder / name
    pq.write_table(columns if isinstance(columns, pa.Table) else table(columns), path)
    return path
