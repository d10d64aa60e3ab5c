"""Ingest whose rules for rows are checked on Spark: what the step's own process finds, whatever the rows are."""

import logging
import os
import zipfile
from collections.abc import Callable
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.steps.ingest_helpers import FIRST, GENERATOR, SOURCE, Deliveries, changed, day
from training import spark_session
from training.adapters import landing
from training.adapters.feature_engines.spark import SparkEngine
from training.adapters.lake import EVENTS, QUARANTINE
from training.contract.errors import ConfigError, DataContractError
from training.contract.messages import IngestInputs
from training.settings import Settings
from training.spark_workers import code_archive
from training.steps.ingest import run
from training.steps.ingest.writing import Partition

pytestmark = pytest.mark.spark

COLUMNS = {
    "note": {"type": "string", "nullable": True},
    "kind": {"type": "category", "nullable": True, "values": ["a", "ß", "日本"]},
    "score": {"type": "float64", "nullable": True, "maximum": 100},
    "price": {"type": "decimal(9, 2)", "nullable": True, "minimum": "0.10", "maximum": "500.00"},
    "big": {"type": "int64", "nullable": True, "maximum": 2**60},
}


@pytest.fixture
def both(tmp_path: Path, spark_url: str) -> list[Deliveries]:
    """The same source twice: ingested by the step's process, and with Spark."""
    engines: list[dict[str, Any]] = [{}, {"engine": "spark", "engine_url": spark_url}]
    made = [Deliveries(Settings(home=tmp_path / str(n), **each)) for n, each in enumerate(engines)]
    for deliveries in made:
        deliveries.respec(lambda feeds: feeds["events"].update(maximum_quarantined=0.97))
        deliveries.respec(lambda feeds: feeds["events"]["columns"].update(COLUMNS))
    return made


def odd_rows(number: int, seed: int) -> pa.Table:
    """The events of a day with odd values in every column, in types that Spark does not have."""
    rows, random = GENERATOR.events(day(number)), np.random.default_rng(seed)
    count = len(rows)

    def some(values: list[Any], odd: list[Any], share: float = 0.05) -> list[Any]:
        at = random.integers(0, len(odd), count)
        return [
            odd[i] if hit else value for value, i, hit in zip(values, at, random.random(count) < share, strict=True)
        ]

    def choice(values: list[Any]) -> list[Any]:
        return [values[i] for i in random.integers(0, len(values), count)]

    day_before = [
        value - 86_400 * 10**9 for value in rows["event_time"].cast(pa.timestamp("ns")).cast("int64").to_pylist()
    ]
    times = rows["event_time"].cast(pa.timestamp("ns")).cast("int64").to_pylist()
    ids, earlier = rows["transaction_id"].to_pylist(), GENERATOR.events(FIRST)["transaction_id"].to_pylist()
    texts = choice(["a", "é", "日本", "", "x" * 200]), choice(["a", "ß", "日本", None] * 5 + ["A", ""])
    nan, infinity = float("nan"), float("inf")
    return pa.table(
        {
            "Transaction_ID": pa.array(some(ids, [*ids[:2], *earlier[100:160], *[2**64 - 1, None] * 9]), pa.uint64()),
            "event_time": pa.array(some(times, [*day_before[:3], None]), pa.int64()).cast(pa.timestamp("ns")),
            "customer_id": pa.array(some(rows["customer_id"].to_pylist(), [-1, 0.5, nan, None]), pa.float64()),
            "terminal_id": rows["terminal_id"].dictionary_encode(),
            "amount": pa.array(some(rows["amount"].to_pylist(), [-1.0, nan, infinity, None, 1e12]), pa.float64()),
            "note": pa.array(texts[0], pa.large_string()),
            "kind": pa.array(texts[1], pa.string()).dictionary_encode(),
            "score": pa.array(choice([1.5, None, nan] * 5 + [infinity, -infinity, 100.5]), pa.float32()),
            "price": pa.array(
                choice([*[Decimal("0.10"), None] * 8, Decimal("0.09"), Decimal("500.01")]), pa.decimal128(20, 2)
            ),
            "big": pa.array(choice([*[2**60, -1, None] * 5, 2**60 + 1]), pa.int64()),
        }
    )


def landed(deliveries: Deliveries, number: int, parts: list[pa.Table], group: int = 1000) -> IngestInputs:
    """A folder of part files with row groups of `group` rows."""
    folder = Path(deliveries.settings.landing, SOURCE, "events", f"{day(number)}")
    folder.mkdir(parents=True)
    for at, rows in enumerate(parts):
        pq.write_table(rows, folder / f"part-{at}.parquet", row_group_size=group)
    (folder / "_SUCCESS").touch()
    return IngestInputs(source=SOURCE, feed="events", partition=str(day(number)), uri=str(folder))


def said(deliveries: Deliveries, take_in: Callable[[Deliveries], Any]) -> Any:
    """The result of an ingest, its page, and everything that is in the lake then."""
    try:
        result = take_in(deliveries)
    except DataContractError as refused:
        said: Any = str(refused).replace(str(deliveries.settings.home), "HOME")
    else:
        said = (result.model_dump(exclude={"data_docs"}), Path(result.data_docs).read_text())
    return said, deliveries.rows(EVENTS), deliveries.rows(QUARANTINE)


def test_both_engines_find_the_same(
    both: list[Deliveries], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Each row group is a task.
    monkeypatch.setattr(landing, "_SHARE_BYTES", 1)
    caplog.set_level(logging.INFO, "perennial")
    rows = odd_rows(1, seed=3)
    invalid = changed(odd_rows(1, seed=4).slice(0, 30), "amount", lambda values: [-1.0] * len(values))
    parts = [rows.slice(0, 90), rows.slice(0, 0), invalid, pa.concat_tables([rows.slice(90), rows.slice(0, 20)])]
    takes: list[Callable[[Deliveries], Any]] = [
        lambda each: run(landed(each, 0, [odd_rows(0, seed=5)]), each.settings),
        lambda each: run(landed(each, 1, parts, 40), each.settings),
        lambda each: run(landed(each, 2, [odd_rows(2, seed=6).slice(0, 0)]), each.settings),
        lambda each: each.labels(7),
    ]
    found = [[said(deliveries, take) for deliveries in both] for take in takes]
    for local, there in found:
        assert there == local
    (result, page), _, quarantined = found[1][0]
    reasons = result["quarantine_reasons"]
    assert {reason.split()[0] for reason in reasons} >= {"transaction_id", "event_time", "customer_id", "amount", "big"}
    assert {"transaction_id is not unique", "transaction_id is in partition 2026-01-05 already"} < set(reasons)
    assert 0 < result["rows_kept"] < result["rows_read"] == len(rows) + 50
    assert len(quarantined) > result["rows_quarantined"]
    assert "2026-01-05 " in page
    assert "2026-01-07: 0 rows" in found[2][1][0]
    judged = [record.getMessage() for record in caplog.records if "parts of the rows" in record.getMessage()]
    groups = sum(max(1, -(-len(part) // 40)) for part in parts)
    assert judged[1] == f"spark checked {groups} of {groups} parts of the rows"


def test_a_file_that_the_workers_cannot_read_is_judged_by_the_step(
    both: list[Deliveries], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another file has its name by now. The step reads the one that it has opened."""
    run_tasks, rows = SparkEngine.run_tasks, odd_rows(0, seed=7)

    def replaced(self: SparkEngine, *given: Any) -> Any:
        folder = Path(both[1].settings.landing, SOURCE, "events", str(FIRST))
        pq.write_table(rows.slice(0, 50), folder / "new")
        os.replace(folder / "new", folder / "part-1.parquet")
        return run_tasks(self, *given)

    monkeypatch.setattr(SparkEngine, "run_tasks", replaced)
    parts = [rows.slice(0, 100), rows.slice(100)]
    local, there = (said(each, lambda each: run(landed(each, 0, parts), each.settings)) for each in both)
    assert there == local
    assert "part-1.parquet is another file now" in caplog.text


def test_killed_before_its_last_commit_the_next_try_leaves_every_row_once(
    both: list[Deliveries], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, rows = landed(both[1], 0, [odd_rows(0, seed=8)]), len(odd_rows(0, seed=8))

    def killed(self: Partition, *_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Partition, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            run(inputs, both[1].settings)
    assert both[1].rows(EVENTS) == []
    assert [run(inputs, both[1].settings).outcome for _ in range(2)] == ["appended", "unchanged"]
    assert len(both[1].rows(EVENTS)) + len(both[1].rows(QUARANTINE)) == rows


def test_workers_without_great_expectations_are_an_error_of_the_setup(
    both: list[Deliveries], spark_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without() -> tuple[str, bytes]:
        """The code, of which one module imports what is not there."""
        (name, content), made = code_archive(), BytesIO()
        with zipfile.ZipFile(BytesIO(content)) as whole, zipfile.ZipFile(made, "w") as archive:
            for entry in whole.namelist():
                lost = entry == "training/adapters/expectations.py"
                archive.writestr(entry, b"import great_expectations_is_lost" if lost else whole.read(entry))
        return f"lost-{name}", made.getvalue()

    monkeypatch.setattr(spark_session, "code_archive", without)
    # A session of its own, because a session keeps the code that it got.
    there = both[1].settings.model_copy(update={"engine_url": f"{spark_url}/;user_agent=lost"})
    inputs = landed(both[1], 0, [odd_rows(0, seed=9)])
    with pytest.raises(
        ConfigError, match=r"workers cannot run our code: .*No module named 'great_expectations_is_lost'"
    ):
        run(inputs, there)
    # While there is a server: at its end, the process would wait for it.
    spark_session.connect(there.engine_url).session.stop()
    assert both[1].rows(EVENTS) == both[1].rows(QUARANTINE) == []
