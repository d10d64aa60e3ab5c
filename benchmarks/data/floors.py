"""The same work with public tools and as little as possible around: NumPy, DuckDB, pyarrow, and Feast as it comes."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

SOURCE = "card_payments"
WINDOWS, DELAY = (1, 7, 30), 7
#: Commits of predictions in a month of days.
COMMITS, MONTH = 1845, 30
#: Rows that stock Feast writes: it takes seconds for each 10,000.
FEAST_ROWS = 5_000


@dataclass
class Cost:
    """CPU seconds of this process, all threads."""

    seconds: float = 0.0
    imports: float = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        started = time.process_time()
        yield
        self.seconds += time.process_time() - started

    @contextmanager
    def importing(self) -> Iterator[None]:
        started = time.process_time()
        yield
        self.imports += time.process_time() - started


def ingest(cost: Cost, home: Path, file: str) -> int:
    """Read a file, look for nulls and repeated ids, take the range of each column, and write it to a Delta table."""
    with cost.importing():
        import pyarrow.compute as pc
        import pyarrow.parquet as pq
        from deltalake import write_deltalake
    with cost.working():
        rows = pq.read_table(file)
        for name in rows.column_names:
            pc.min_max(rows[name])
            assert not rows[name].null_count
        assert pc.count_distinct(rows[rows.column_names[0]]).as_py() == rows.num_rows
        write_deltalake(str(home / "floor" / Path(file).parent.name), rows)
    return int(rows.num_rows)


def features(cost: Cost, home: Path, events_file: str, labels_file: str) -> int:
    """Counts and means per customer, counts and shares of frauds per terminal, of all windows and days, as Parquet.

    Labels come after exactly DELAY days, and entities are small whole numbers: so plain arrays do.
    """
    with cost.importing():
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq
    with cost.working():
        events = pq.read_table(events_file)
        labels = pq.read_table(labels_file, columns=["transaction_id", "is_fraud"])
        times = events["event_time"].to_numpy().astype("datetime64[D]").astype(np.int64)
        day, days = times - times.min(), int(np.ptp(times)) + 2
        order = np.argsort(labels["transaction_id"].to_numpy())
        ids = labels["transaction_id"].to_numpy()[order]
        place = np.minimum(np.searchsorted(ids, events["transaction_id"].to_numpy()), len(ids) - 1)
        is_known = ids[place] == events["transaction_id"].to_numpy()
        fraud = labels["is_fraud"].to_numpy()[order][place] * is_known
        amount = events["amount"].to_numpy()
        written = 0
        for column, sums, delay in (("customer_id", (None, amount), 0), ("terminal_id", (is_known, fraud), DELAY)):
            entity = events[column].to_numpy()
            size = int(entity.max()) + 1
            counts, totals = (np.bincount(day * size + entity, each, days * size).reshape(days, size) for each in sums)
            counts, totals = (np.vstack([np.zeros((1, size)), np.cumsum(each, axis=0)]) for each in (counts, totals))
            made = {column: np.tile(np.arange(size), days), "day": np.repeat(np.arange(days), size)}
            for window in WINDOWS:
                last = np.maximum(np.arange(days) - delay, 0)
                first = np.maximum(last - window, 0)
                count, total = counts[last] - counts[first], totals[last] - totals[first]
                made[f"count_{window}"] = count.ravel().astype(np.float32)
                made[f"mean_{window}"] = (total / np.maximum(count, 1)).ravel().astype(np.float32)
            pq.write_table(pa.table(made), home / f"floor-{column}.parquet")
            written += days * size
    return written


def join(cost: Cost, home: Path) -> int:
    """DuckDB's ASOF JOIN of all payments with both feature tables."""
    with cost.importing():
        import duckdb
        from deltalake import DeltaTable

        from training import delta_reader
    tables = {name: DeltaTable(str(home / "lake" / SOURCE / name)) for name in ("events", *_tables())}
    with cost.working(), duckdb.connect() as connection:
        connection.execute("SET asof_loop_join_threshold = 0")
        for name, table in tables.items():
            connection.register(name, delta_reader.dataset(table))
        sql = "SELECT * FROM events " + " ".join(
            f"ASOF LEFT JOIN {name} ON events.{key} = {name}.{key} AND events.event_time >= {name}.feature_timestamp"
            for name, key in _tables().items()
        )
        return int(connection.execute(sql).to_arrow_table().num_rows)


def feast(cost: Cost, home: Path, online: str) -> int:
    """Stock Feast's write of the newest FEAST_ROWS rows of each view."""
    from deltalake import DeltaTable

    from training.adapters.features.declared_views import declared_objects
    from training.adapters.features.store import private_store
    from training.contract.source_spec import load_source_spec
    from training.settings import Settings

    url = online if "://" in online else str(home / "floor-online.db")
    entities, views = declared_objects(load_source_spec(SOURCE))
    written = 0
    with private_store(Settings(home=home, online_store=url), [*entities, *views], online=True) as store:
        for view in views:
            rows = DeltaTable(str(home / "lake" / SOURCE / view.name)).to_pyarrow_dataset().head(FEAST_ROWS)
            frame = rows.drop_columns("day").to_pandas()
            with cost.working():
                store.write_to_online_store(view.name, frame)
            written += len(frame)
    return written


def ready_rows(cost: Cost, home: Path) -> int:
    """SQLite alone: what is online goes into an empty file of the same layout, one statement for each entity."""
    import sqlite3

    with closing(sqlite3.connect(home / "feast" / "online.db")) as stored:
        layout = [sql for (sql,) in stored.execute("SELECT sql FROM sqlite_master WHERE sql LIKE '%entity_key%'")]
        tables = [name for (name,) in stored.execute("SELECT name FROM sqlite_master WHERE name LIKE '%_features'")]
        rows = {
            name: stored.execute(f'SELECT * FROM "{name}" ORDER BY entity_key, rowid').fetchall() for name in tables
        }
    written = 0
    with closing(sqlite3.connect(home / "ready.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for sql in layout:
            connection.execute(sql)
        for name, values in rows.items():
            names = list(dict.fromkeys(feature for _, feature, *_ in values))
            each = [f"(?1, '{feature}', ?{2 * i + 3}, ?{2 * i + 4}, NULL, ?2, NULL)" for i, feature in enumerate(names)]
            sql = f'INSERT INTO "{name}" VALUES {", ".join(each)}'
            of_entities = (values[i : i + len(names)] for i in range(0, len(values), len(names)))
            entities = [(some[0][0], some[0][5], *chain(*(row[2:4] for row in some))) for some in of_entities]
            with cost.working(), connection:
                connection.executemany(sql, entities)
            written += len(entities)
    return written


def month(cost: Cost, home: Path, how: str) -> int:
    """Open and read the scores of a month of predictions: of many commits, `merged`, or of one Parquet file (`plain`).

    The first call makes the commits, `merged` merges their files, and `plain` writes the file.
    """
    with cost.importing():
        import pyarrow.parquet as pq

        from benchmarks.small_files import FIRST, filled, scan
        from training.adapters.lake import PREDICTIONS, Lake
    folder, file = home / "predictions", home / "predictions.parquet"
    lake = Lake(str(folder), SOURCE, "card_fraud") if folder.exists() else filled(str(folder), COMMITS, MONTH, 50)
    if how == "merged":
        lake.compact(PREDICTIONS, "day", FIRST + timedelta(days=MONTH))
    if how == "plain":
        pq.write_table(lake.scan(PREDICTIONS).to_table(), file)
        with cost.working():
            return int(pq.read_table(file, columns=["model_version", "outputs"]).num_rows)
    with cost.working():
        return scan(lake, MONTH)[1]


def stock_import(cost: Cost, home: Path) -> int:
    with cost.working():
        import feast  # noqa: F401
    return 0


def quick_import(cost: Cost, home: Path) -> int:
    from training.compat import feast as compat

    with cost.working(), compat.quick_import():
        pass
    return 0


def _tables() -> dict[str, str]:
    return {"customer_features": "customer_id", "terminal_features": "terminal_id"}


FLOORS: Mapping[str, Callable[..., Any]] = {
    each.__name__: each for each in (ingest, features, join, feast, ready_rows, month, stock_import, quick_import)
}
