"""The check for leakage: feature rows must not change when what was not known at their time is removed."""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from tests.cases import others_in_ci, others_long
from tests.feature_repo.payments_and_features import payments, put, with_corrections
from tests.steps.typical_mistakes import CARDS, CARDS_SQL, FLIGHTS_SQL, copy_files, replaced
from training.adapters.lake import Lake
from training.contract.errors import ConfigError
from training.contract.messages import CheckInputs
from training.contract.source_spec import load_source_spec
from training.domain.sample_feeds import sample_feeds
from training.settings import Settings
from training.steps import check

Change = Callable[[Path], object]
IN_LANDED = "(in the landed data)"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    copy_files(tmp_path, by_hand=True)
    return tmp_path


def settings_of(files: Path) -> Settings:
    return Settings(home=files / "home", models_dir=files / "models", feature_repo=files / "repo")


def found(files: Path, source: str) -> list[str]:
    return [str(problem) for problem in check.find_source_problems(source, settings_of(files)) if problem.sure]


def land(files: Path, source: str, days: int) -> None:
    """Events and labels that follow the spec, with another seed than those of the check."""
    settings = settings_of(files)
    spec = load_source_spec(source, settings.feature_repo)
    for feed, rows in sample_feeds(spec, date(2026, 3, 2), days, seed=7).items():
        partition = pa.array(["all"] * len(rows), pa.string())
        Lake(settings.lake, source).replace(
            feed, rows.append_column("partition", partition), "partition = 'all'", ["partition"]
        )


FIRST_COUNT = "coalesce(sum(n) FILTER (WHERE age <= 1), 0)::FLOAT"


def first_count(sql: str) -> Change:
    """SQL in the place of customer_count_1d."""
    return replaced(CARDS_SQL, (f"{FIRST_COUNT} AS", f"coalesce({sql}, 0)::FLOAT AS"))


EVENT_PEEKS: dict[str, Change] = {
    "a window that reaches one day too far": first_count(
        "(SELECT count(*) FROM events WHERE events.customer_id = spread.customer_id"
        " AND CAST(event_time AS DATE) BETWEEN spread.day - 30 AND spread.day)"
    ),
    "the largest amount of the whole table": first_count("(SELECT max(amount) - 1 FROM events)"),
    "a percentile over all days": first_count("(SELECT quantile_cont(amount, 0.9) FROM events)"),
    "a join to the next event": first_count(
        "(SELECT min(epoch(event_time)) - epoch(spread.day) FROM events WHERE events.customer_id = spread.customer_id"
        " AND event_time >= spread.day)"
    ),
    "only large amounts of the day": first_count(
        "(SELECT count(*) FROM events WHERE amount > 90000 AND CAST(event_time AS DATE) = spread.day)"
    ),
    "only on Sundays": first_count(
        "(SELECT count(*) FROM events WHERE CAST(event_time AS DATE) = spread.day AND dayofweek(spread.day) = 0)"
    ),
}


@pytest.mark.parametrize("name", others_long(EVENT_PEEKS))
def test_sql_that_uses_later_events_is_found_before_anything_has_landed(files: Path, name: str) -> None:
    EVENT_PEEKS[name](files)
    [problem] = found(files, "card_payments")
    assert problem.startswith("customer_features uses events of the day itself or later at the start of 20"), problem
    assert ": customer_count_1d differs on " in problem
    assert IN_LANDED not in problem


def first_feature(sql: str) -> Change:
    """Another feature `other` of the customer, before customer_count_1d."""
    return replaced(CARDS_SQL, (f"{FIRST_COUNT} AS", f"{sql} AS other, {FIRST_COUNT} AS"))


TODAY = "FROM events WHERE events.customer_id = spread.customer_id AND CAST(event_time AS DATE) = spread.day"


@pytest.mark.parametrize(
    "sql",
    others_long(
        [
            f"(SELECT list(amount ORDER BY amount) {TODAY})",
            f"(SELECT 10000000000 + count(*) {TODAY})",
            f"(SELECT max(event_time) {TODAY})",
            f"(SELECT max(event_time)::DATE {TODAY})",
            f"(SELECT CASE WHEN count(*) > 0 THEN true END {TODAY})",
            f"(SELECT max(amount)::DECIMAL(18, 2) {TODAY})",
            f"(SELECT {{'a': max(amount)}} {TODAY})",
        ],
    ),
)
def test_a_peek_is_found_in_features_of_all_types(files: Path, sql: str) -> None:
    first_feature(sql)(files)
    said = [problem for problem in found(files, "card_payments") if "uses events of the day itself or later" in problem]
    assert len(said) == 1
    assert ": other differs on " in said[0]


@pytest.mark.parametrize("sql", others_in_ci(["[1.0, 2.0]", "TIMESTAMP '2026-01-01'", "{'a': 1}", "NULL::INT[]"]))
def test_features_of_other_types_without_a_peek_are_no_leakage(files: Path, sql: str) -> None:
    first_feature(sql)(files)
    assert not [problem for problem in found(files, "card_payments") if "uses " in problem or "differ" in problem]


LABEL_PEEKS: dict[str, tuple[str, Change, str]] = {
    "reported on the day itself": (
        "card_payments",
        replaced(CARDS_SQL, ("WHEN reported_on < paid_on + age", "WHEN reported_on <= paid_on + age")),
        "terminal_features uses labels that were not yet reported",
    ),
    "a label without its report": (
        "flights",
        replaced(FLIGHTS_SQL, ("reported < bucket + age AND bucket + age <= corrected", "reported IS NOT NULL")),
        "carrier_delays uses labels that were not yet reported",
    ),
    "the mean of all labels": (
        "card_payments",
        replaced(
            CARDS_SQL, ("coalesce(frauds1 / nullif(n1, 0), 0)::FLOAT", "(SELECT avg(is_fraud) FROM labels)::FLOAT")
        ),
        "terminal_features uses labels that were not yet reported at the start of",
    ),
}


@pytest.mark.parametrize("name", others_long(LABEL_PEEKS))
def test_sql_that_uses_labels_before_their_report_is_found(files: Path, name: str) -> None:
    source, change, said = LABEL_PEEKS[name]
    change(files)
    [problem] = found(files, source)
    assert problem.startswith(said), problem


def test_sql_that_uses_events_and_labels_of_later_gives_one_message(files: Path) -> None:
    labels = "(SELECT count(*) FROM events JOIN labels USING (transaction_id) WHERE is_fraud = 1)"
    first_count(labels)(files)
    [problem] = found(files, "card_payments")
    both = "uses events of the day itself or later and labels that were not yet reported at the start of"
    assert both in problem


@pytest.mark.ci
def test_sql_that_uses_later_events_only_for_landed_values_is_found_when_they_have_landed(files: Path) -> None:
    """Generated events have no entity with such a large number."""
    first_count(
        "(SELECT count(*) FROM events WHERE events.customer_id = spread.customer_id AND customer_id > 900000"
        " AND CAST(event_time AS DATE) = spread.day)"
    )(files)
    assert found(files, "card_payments") == []
    events, labels = payments(20)
    put(settings_of(files), events.assign(customer_id=events["customer_id"] + 1_000_000), labels)
    [problem] = found(files, "card_payments")
    assert problem.startswith("customer_features uses events of the day itself or later at the start of 2026-01-")
    assert ": customer_count_1d differs on 2026-01-" in problem
    assert problem.endswith(IN_LANDED)


def test_the_step_checks_again_when_data_has_landed(files: Path) -> None:
    first_count(
        "(SELECT count(*) FROM events WHERE events.customer_id = spread.customer_id AND customer_id > 900000"
        " AND CAST(event_time AS DATE) = spread.day)"
    )(files)
    shutil.rmtree(files / "models")  # Those of the source would be checked too.
    (files / "models").mkdir()
    settings = settings_of(files)
    assert check.run(CheckInputs(source="card_payments"), settings).outcome == "passed"
    assert check.run(CheckInputs(source="card_payments"), settings).outcome == "unchanged"
    events, labels = payments(20)
    put(settings, events.assign(customer_id=events["customer_id"] + 1_000_000), labels)
    with pytest.raises(ConfigError, match=r"customer_count_1d differs on 2026-01-.* \(in the landed data\)"):
        check.run(CheckInputs(source="card_payments"), settings)


@pytest.mark.ci
def test_sql_that_uses_landed_labels_before_their_report_is_found(files: Path) -> None:
    """Only for labels of terminals that generated events do not have."""
    frauds = "sum(is_fraud) AS frauds"
    peek = "sum(CASE WHEN terminal_id < 900000 THEN is_fraud END) AS frauds"
    replaced(
        CARDS_SQL,
        (frauds, peek),
        ("coalesce(frauds30 / nullif(n30, 0), 0)", "coalesce(frauds30 / nullif(n30, 0), 0) + late"),
        (
            "    FROM spread\n    GROUP BY terminal_id, day\n)",
            "        , (SELECT count(*) FROM labels JOIN events USING (transaction_id) WHERE terminal_id > 900000"
            " AND events.terminal_id = spread.terminal_id AND event_time < spread.day) AS late\n"
            "    FROM spread\n    GROUP BY terminal_id, day\n)",
        ),
    )(files)
    assert found(files, "card_payments") == []
    events, labels = payments(40)
    put(settings_of(files), events.assign(terminal_id=events["terminal_id"] + 1_000_000), labels)
    [problem] = found(files, "card_payments")
    assert "terminal_features uses labels that were not yet reported at the start of 2026-0" in problem
    assert "terminal_fraud_share_30d differs" in problem


@pytest.mark.ci
@pytest.mark.parametrize("by_hand", others_long([False, True]))
def test_the_reference_sources_pass_on_landed_data(tmp_path: Path, by_hand: bool) -> None:
    copy_files(tmp_path, by_hand=by_hand)
    events, labels = payments(60, delays=(0, 3, 7, 12, -1))
    put(settings_of(tmp_path), events, with_corrections(labels))
    land(tmp_path, "flights", 50)
    assert found(tmp_path, "card_payments") == []
    assert found(tmp_path, "flights") == []


def test_silence_that_stands_for_a_negative_is_no_leakage(files: Path) -> None:
    replaced(
        CARDS, ("{feed: labels, delay_days: 7}", "{feed: labels, delay_days: 7, unlabelled_after_delay: negative}")
    )(files)
    events, labels = payments(30, delays=(0, 3, 7, 12, -1))
    put(settings_of(files), events, with_corrections(labels[labels["is_fraud"] == 1]))
    assert found(files, "card_payments") == []


def test_of_many_landed_events_a_sample_is_read(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.steps.check.landed.MAXIMUM_EVENTS", 100)
    EVENT_PEEKS["a window that reaches one day too far"](files)
    events, labels = payments(60, per_day=40)
    put(settings_of(files), events, labels)
    from training.steps.check.landed import landed_feeds

    spec = load_source_spec("card_payments", files / "repo")
    landed = landed_feeds(spec, settings_of(files))
    assert landed is not None
    rows = landed.feeds["events"].to_pandas()
    assert 50 < len(rows) <= 101
    assert set(landed.feeds["labels"]["transaction_id"].to_pylist()) <= set(rows["transaction_id"])
    assert rows["event_time"].max() > pd.Timestamp(landed.day, tz="UTC") > rows["event_time"].min()


VISITS: dict[str, Any] = {
    "name": "visits",
    "title": "Visits",
    "owner": "someone",
    "feeds": {
        "events": {
            "time_column": "seen_at",
            "id_column": "visit",
            "columns": {
                "visit": {"type": "int64", "unique": True},
                "seen_at": {"type": "timestamp"},
                "shop": {"type": "string", "nullable": True},
                "bought": {"type": "int64", "values": [0, 1]},
                "amount": {"type": "float64", "minimum": 0, "maximum": 100},
            },
        }
    },
    # The label is in the event file.
    "labels": {"bought": {"feed": "events"}},
    "features": {"event_columns": ["amount"]},
}
VIEW = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.data_format import DeltaFormat
from feast.types import Float32

shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
shop_rows = FeatureView(
    name="shop_rows", entities=[shop], ttl=timedelta(days=2), schema=[Field(name="shop_bought", dtype=Float32)],
    source=FileSource(name="shop_rows", path="x", timestamp_field="feature_timestamp", file_format=DeltaFormat()),
)
"""
HOURLY = """-- table: shop_rows
WITH spread AS (
    SELECT shop, bought, date_trunc('hour', CAST(seen_at AS TIMESTAMP)) + to_hours(CAST(age AS INTEGER)) AS moment
    FROM events, (SELECT range AS age FROM range({first}, 4))
)
SELECT shop, CAST(moment AS DATE) AS day, moment AS feature_timestamp, coalesce(sum(bought), 0)::FLOAT AS shop_bought
FROM spread WHERE moment >= $start AND moment < $end
GROUP BY shop, moment
"""
DAILY = """-- table: shop_rows
SELECT shop, day, coalesce(sum(bought), 0)::FLOAT AS shop_bought
FROM (SELECT shop, bought, CAST(seen_at AS DATE) + CAST(range AS INTEGER) AS day FROM events, range({first}, 4))
WHERE day >= $start AND day < $end
GROUP BY shop, day
"""


def visits(folder: Path, table: dict[str, Any] | None = None, sql: str = "") -> Path:
    """The source `visits` in `folder`, with this feature table and its SQL."""
    (folder / "models").mkdir(exist_ok=True)
    (folder / "repo").mkdir(exist_ok=True)
    (folder / "repo" / "feature_store.yaml").write_bytes((Settings().feature_repo / "feature_store.yaml").read_bytes())
    source = VISITS if table is None else VISITS | {"features": {"tables": {"shop_rows": table}}}
    (folder / "repo" / "visits.yaml").write_text(yaml.safe_dump(source, sort_keys=False))
    if sql:
        (folder / "repo" / "visits.sql").write_text(sql)
        (folder / "repo" / "visits.py").write_text(VIEW)
    return folder


@pytest.mark.parametrize("landed", others_long([True, False]))
@pytest.mark.parametrize(
    ("sql", "table", "unit"),
    [
        (HOURLY, {"entity": "shop", "every": "1h", "history_days": 1}, "hour"),
        (DAILY, {"entity": "shop", "history_days": 4}, "day"),
    ],
)
def test_labels_in_the_event_file_are_known_only_after_the_event(
    tmp_path: Path, sql: str, table: dict[str, Any], unit: str, landed: bool
) -> None:
    visits(tmp_path, table, sql.format(first=1))
    if landed:
        land(tmp_path, "visits", 20)
    assert found(tmp_path, "visits") == []
    visits(tmp_path, table, sql.format(first=0))
    [problem] = found(tmp_path, "visits")
    assert problem.startswith(f"shop_rows uses events of the {unit} itself or later at the start of"), problem


@pytest.mark.parametrize("landed", others_in_ci([True, False]))
def test_declared_hourly_tables_and_sources_without_entities_pass(tmp_path: Path, landed: bool) -> None:
    declared = {
        "entity": "shop",
        "ttl_days": 2,
        "every": "1h",
        "windows": ["1h", "6h"],
        "label": "bought",
        "aggregations": {"bought": {"function": "share", "condition": "bought = 1"}},
    }
    visits(tmp_path, None)
    if landed:
        land(tmp_path, "visits", 20)
    assert found(tmp_path, "visits") == []
    visits(tmp_path, declared)
    assert found(tmp_path, "visits") == []


def test_a_request_feature_cannot_use_the_label_of_the_event_file(tmp_path: Path) -> None:
    visits(tmp_path, None)
    (tmp_path / "repo" / "visits.py").write_text(
        "import numpy as np, pandas as pd\nfrom feast import Field, RequestSource\n"
        "from feast.on_demand_feature_view import on_demand_feature_view\nfrom feast.types import Float32, Int64\n"
        "visit = RequestSource(name='visit_request', schema=[Field(name='bought', dtype=Int64)])\n"
        "@on_demand_feature_view(name='now', sources=[visit], schema=[Field(name='bought_it', dtype=Float32)])\n"
        "def now(inputs: pd.DataFrame) -> pd.DataFrame:\n"
        "    return type(inputs)({'bought_it': np.asarray(inputs['bought'], np.float32)})\n"
    )
    [problem] = found(tmp_path, "visits")
    assert "on-demand view now takes 'bought' of a request, which is not one of the columns" in problem
