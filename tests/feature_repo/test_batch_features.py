"""The tables of card_payments, generated and written by hand, against their definitions, payment by payment."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.cases import others_in_ci, others_long
from tests.feature_repo.payments_and_features import (
    TIME,
    customer_features,
    day,
    midnight,
    payments,
    terminal_features,
    with_corrections,
)
from tests.feature_repo.written_by_hand import BY_HAND, spec_by_hand
from training.adapters.feature_query import FeatureQueries
from training.contract.base import Days
from training.contract.errors import ConfigError, DataContractError
from training.contract.model_spec import ModelSpec
from training.settings import ROOT

LATE = (1, 7, 7, 9, 16, 40, -1)


#: Another test shows that the rows written by hand equal the generated ones.
@pytest.fixture(params=others_in_ci(["generated", "by hand"]))
def queries(request: pytest.FixtureRequest, spec: ModelSpec) -> FeatureQueries:
    if request.param == "by hand":
        return FeatureQueries.of_source(spec_by_hand(), BY_HAND)
    return FeatureQueries.of_source(spec.source, ROOT / "feature_repo")


def run(
    queries: FeatureQueries, table: str, first: int, end: int, events: pd.DataFrame, labels: pd.DataFrame
) -> pd.DataFrame:
    relations = {
        "events": pa.Table.from_pandas(events, preserve_index=False),
        "labels": pa.Table.from_pandas(labels, preserve_index=False),
    }
    return queries.run(table, Days(start=day(first), end=day(end)), relations).to_pandas()


@pytest.mark.parametrize("seed", others_long(range(3)))
def test_customer_rows_are_as_defined(queries: FeatureQueries, seed: int) -> None:
    events, labels = payments(45, per_day=2, entities=3, seed=seed)
    found = run(queries, "customer_features", 0, 80, events, labels).set_index(["customer_id", "feature_timestamp"])
    for n in range(0, 80, 2):
        for customer in range(3):
            want = customer_features(events, customer, midnight(n))
            if (customer, midnight(n)) in found.index:
                row = found.loc[(customer, midnight(n))]
                assert row[list(want)].to_numpy(float) == pytest.approx(list(want.values()), rel=1e-5)
            else:
                assert not any(want.values())


@pytest.mark.parametrize("seed", others_long(range(3)))
def test_terminal_rows_are_as_defined_with_labels_of_any_delay_and_corrected(
    queries: FeatureQueries, seed: int
) -> None:
    events, labels = payments(45, per_day=2, entities=2, seed=seed, delays=LATE)
    labels = with_corrections(labels, seed)
    found = run(queries, "terminal_features", 0, 90, events, labels).set_index(["terminal_id", "feature_timestamp"])
    some = False
    for n in range(0, 90, 2):
        for terminal in range(100, 102):
            want = terminal_features(events, labels, terminal, midnight(n))
            if (terminal, midnight(n)) in found.index:
                row = found.loc[(terminal, midnight(n))]
                assert row[list(want)].to_numpy(float) == pytest.approx(list(want.values()), rel=1e-5)
                some = some or want["terminal_fraud_share_7d"] > 0
            else:
                assert not any(want.values())
    assert some


def test_a_label_that_comes_later_changes_no_earlier_row(queries: FeatureQueries) -> None:
    events, labels = payments(45, entities=4, delays=LATE)
    labels = with_corrections(labels)
    for n in (20, 33, 46):
        known = labels[labels["reported_at"] < midnight(n)]
        before = run(queries, "terminal_features", n - 5, n + 1, events, known)
        after = run(queries, "terminal_features", n - 5, n + 1, events, labels)
        pd.testing.assert_frame_equal(before, after)


def test_a_corrected_label_counts_from_its_own_report_on(queries: FeatureQueries) -> None:
    """A payment of day 0, reported good on day 7 and a fraud on day 12."""
    events, labels = payments(1, per_day=1, fraud=0)
    correction = labels.assign(is_fraud=1, reported_at=labels["reported_at"] + pd.Timedelta(days=5))
    for order in ([labels, correction], [correction, labels]):
        found = run(queries, "terminal_features", 0, 40, events, pd.concat(order)).set_index("day")
        assert found["terminal_fraud_share_30d"].loc[day(8) : day(12)].tolist() == [0] * 5
        assert found["terminal_fraud_share_30d"].loc[day(13) : day(37)].tolist() == [1] * 25
        assert found["terminal_count_30d"].loc[day(8) : day(37)].tolist() == [1] * 30


@pytest.mark.parametrize("seed", others_long(range(4)))
@pytest.mark.parametrize("table", ["customer_features", "terminal_features"])
def test_the_generated_rows_equal_those_written_by_hand(spec: ModelSpec, table: str, seed: int) -> None:
    events, labels = payments(60, per_day=40, entities=9, seed=seed, delays=LATE)
    events["amount"] *= np.random.default_rng(seed).uniform(0.1, 3, len(events))
    labels = with_corrections(labels, seed)
    by_hand = FeatureQueries.of_source(spec_by_hand(), BY_HAND)
    generated = FeatureQueries.of_source(spec.source, ROOT / "feature_repo")
    rows = run(generated, table, 0, 105, events, labels)
    assert len(rows) > 500
    pd.testing.assert_frame_equal(rows, run(by_hand, table, 0, 105, events, labels), check_exact=True)
    assert spec.source.history_of(table) == spec_by_hand().history_of(table)


@pytest.mark.parametrize("table", ["customer_features", "terminal_features"])
def test_one_day_alone_is_bit_for_bit_the_same_as_within_many(
    queries: FeatureQueries, spec: ModelSpec, table: str
) -> None:
    events, labels = payments(60, delays=LATE)
    labels = with_corrections(labels)
    many = run(queries, table, 0, 60, events, labels)
    for n in (5, 38, 59):
        # What the step reads for this day: the history that the spec promises is enough.
        since = midnight(n - spec.source.history_days)
        recent = events[events["event_time"] >= since], labels[labels["reported_at"] >= since]
        alone = run(queries, table, n, n + 1, *recent)
        same = many[many["day"] == day(n)].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, same)


def test_an_entity_that_falls_silent_gets_closing_zeros(queries: FeatureQueries) -> None:
    events, labels = payments(1, per_day=5, entities=1)
    customers = run(queries, "customer_features", 0, 60, events, labels).set_index("day")
    assert customers["customer_count_30d"].loc[day(30)] == 5
    assert customers["customer_count_30d"].loc[day(31)] == 0
    assert max(customers.index) == day(31)
    terminals = run(queries, "terminal_features", 0, 60, events, labels).set_index("day")
    assert terminals["terminal_count_30d"].loc[day(37)] == 5
    assert terminals["terminal_count_30d"].loc[day(38)] == 0
    assert max(terminals.index) == day(38)


def test_rows_come_in_order_with_the_lake_types(queries: FeatureQueries) -> None:
    events, labels = payments(10)
    relations = {"events": pa.Table.from_pandas(events), "labels": pa.Table.from_pandas(labels)}
    found = queries.run("terminal_features", Days(start=day(2), end=day(10)), relations)
    assert found.schema.field("feature_timestamp").type == TIME
    assert found.schema.field("day").type == pa.date32()
    features = [name for name in found.column_names if name not in ("terminal_id", "feature_timestamp", "day")]
    assert {found.schema.field(name).type for name in features} == {pa.float32()}
    keys = found.select(["day", "terminal_id"]).to_pandas()
    pd.testing.assert_frame_equal(keys, keys.sort_values(["day", "terminal_id"], ignore_index=True))
    assert not keys.duplicated().any()
    assert np.array_equal(found["feature_timestamp"].to_pandas().dt.date, found["day"].to_pandas())


def test_the_file_and_the_spec_must_name_the_same_tables(tmp_path: Path) -> None:
    path = tmp_path / "m.sql"
    with pytest.raises(ConfigError, match=r"m\.sql"):
        FeatureQueries(path, {"a": "id"})
    path.write_text("-- table: b\nSELECT 1\n")
    with pytest.raises(ConfigError, match=r"\['b'\].*\['a'\]"):
        FeatureQueries(path, {"a": "id"})


@pytest.mark.parametrize(
    ("select", "error", "said"),
    [
        ("SELECT nonsense FROM events", ConfigError, "nonsense"),
        ("SELECT customer_id, 1.0 AS x FROM events", ConfigError, "day"),
        ("SELECT customer_id, CAST(event_time AS DATE) AS day, NULL AS x FROM events", DataContractError, "nulls.*x"),
        ("SELECT CAST(event_time AS DATE) AS day, 1.0 AS x FROM events", ConfigError, "customer_id"),
    ],
)
def test_wrong_sql_says_what_is_wrong(tmp_path: Path, select: str, error: type[Exception], said: str) -> None:
    path = tmp_path / "m.sql"
    path.write_text(f"-- table: t\n{select}")
    events, labels = payments(2)
    with pytest.raises(error, match=said):
        run(FeatureQueries(path, {"t": "customer_id"}), "t", 0, 2, events, labels)
