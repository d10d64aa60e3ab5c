"""The decision on drift, and the windows that drift and performance look at."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from training.contract.base import Days
from training.contract.feature_definitions import FeatureColumn, FeatureDefinitions, ViewColumn, ViewDefinition
from training.contract.messages import ColumnDrift, Shift
from training.contract.model_spec import load_model_spec
from training.domain.comparison import OUTPUT, Rows, compared, matched, representatives, sample, spread, with_outputs
from training.domain.coverage import covered_days
from training.domain.drift import current_window, has_drifted, judged, short_of_history
from training.domain.frames import PREDICTED_AT, PREDICTION_ID
from training.domain.performance import first_made, matured_window


def test_columns_of_events_are_compared_as_models_get_them() -> None:
    columns = [FeatureColumn(name=name, may_be_missing=True) for name in ("price", "weekend", "stops")]
    columns.append(FeatureColumn(name="origin", categories=("EWR",), may_be_missing=True))
    kept = {
        "price": [Decimal("12.50"), None],
        "weekend": [True, None],
        "stops": pd.array([2, None], "Int16"),
        "origin": ["EWR", None],
        "id": [1, 2],
    }
    found = compared(pd.DataFrame(kept), columns)
    assert found.dtypes.tolist() == [np.float32, np.float32, np.float32, object]
    assert found.iloc[0].tolist() == [12.5, 1, 2, "EWR"]
    assert found.iloc[1].isna().all()


def _columns(drifted: int, of: int, score: bool = False, tested: bool = False) -> dict[str, ColumnDrift]:
    def column(drifted: bool) -> ColumnDrift:
        shift = Shift(part="", reference=0, current=0, minimum=0, p_value=1, design_effect=1) if tested else None
        score = 0.2 if drifted else 0.0
        return ColumnDrift(score=score, threshold=0.1, method="wasserstein", drifted=drifted, shift=shift)

    return {f"f{i}": column(i < drifted) for i in range(of)} | {f"{OUTPUT}score": column(score)}


@pytest.mark.parametrize(
    ("drifted", "of", "score", "expected"),
    [
        (0, 10, False, (False, 0.0)),
        (2, 10, False, (False, 0.2)),
        (3, 10, False, (True, 0.3)),
        (10, 10, False, (True, 1.0)),
        (0, 10, True, (True, 0.0)),
        (0, 0, False, (False, 0.0)),
    ],
)
def test_the_share_of_features_or_the_score_decides(drifted: int, of: int, score: bool, expected) -> None:
    assert has_drifted(_columns(drifted, of, score), 0.3) == expected
    # Distances without a p-value need that share when the spec says none.
    assert has_drifted(_columns(drifted, of, score), None) == expected
    assert has_drifted(_columns(drifted, of, score, tested=True), 0.3) == expected


@pytest.mark.parametrize(("drifted", "score", "expected"), [(0, False, False), (1, False, True), (0, True, True)])
def test_one_column_suffices_when_columns_are_tested_and_the_spec_says_no_share(
    drifted: int, score: bool, expected: bool
) -> None:
    assert has_drifted(_columns(drifted, 20, score, tested=True), None) == (expected, drifted / 20)


def test_a_share_of_zero_asks_for_retraining_always() -> None:
    assert has_drifted(_columns(0, 5), 0.0) == (True, 0.0)


def test_a_test_decides_and_evidently_only_where_there_is_none() -> None:
    page = {"a": column_drift(0.3, True), "b": column_drift(0.0, False), "c": column_drift(0.3, True)}
    sure = Shift(
        part="equal to 0",
        reference=0,
        current=0.05,
        minimum=0.02,
        p_value=1e-9,
        adjusted_p_value=1e-8,
        chance=1e-3,
        design_effect=1,
    )
    unsure = sure.model_copy(update={"adjusted_p_value": 0.5})
    found = judged(page, {"a": unsure, "b": sure, "customer_id": sure})
    assert {name: column.drifted for name, column in found.items()} == {
        "a": False,
        "b": True,
        "c": True,
        "customer_id": True,
    }
    assert (found["a"].score, found["customer_id"].score) == (0.3, 0.05)
    assert sorted(found, key=lambda name: found[name].certainty)[0] == "customer_id"


def column_drift(score: float, drifted: bool) -> ColumnDrift:
    return ColumnDrift(score=score, threshold=0.1, method="wasserstein", drifted=drifted)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (3, {"customer_count_7d", "customer_count_30d", "terminal_count_1d", "terminal_count_30d"}),
        (29, {"customer_count_30d", "terminal_count_30d"}),
        (36, {"terminal_count_30d"}),  # Windows of labels end seven days before the row.
        (37, set()),
    ],
)
def test_features_whose_reference_lies_before_their_history_are_named(start: int, expected: set[str]) -> None:
    spec, first = load_model_spec("card_fraud"), date(2026, 1, 5)

    def view(name: str, *columns: str) -> ViewDefinition:
        made = tuple(ViewColumn(name=column, type="FLOAT") for column in columns)
        return ViewDefinition(name=name, entity="x", entity_type="INT64", ttl_seconds=1, columns=made)

    views = (
        view("customer_features", "customer_count_1d", "customer_count_7d", "customer_count_30d"),
        view("terminal_features", "terminal_count_1d", "terminal_count_30d"),
        view("of_another_source", "unknown"),
    )
    definitions = FeatureDefinitions(views=views, request_views=())
    days = Days(start=first + timedelta(days=start), end=first + timedelta(days=start + 14))
    assert set(short_of_history(spec.source, definitions, days, first)) == expected


def test_the_sample_depends_on_the_seed_alone_and_keeps_the_order() -> None:
    rows = pd.DataFrame({"id": range(1000)})
    first, again, other = sample(rows, 50, seed=1), sample(rows, 50, seed=1), sample(rows, 50, seed=2)
    assert len(first) == 50
    assert first.equals(again)
    assert not first.equals(other)
    assert first["id"].is_monotonic_increasing
    assert sample(rows, 5000, seed=1) is rows


def test_the_windows_lie_before_the_horizon_and_before_labels_that_are_still_out() -> None:
    as_of = date(2026, 3, 16)
    assert current_window(as_of, 7) == Days(start=date(2026, 3, 9), end=as_of)
    assert matured_window(as_of, 7, 7) == Days(start=date(2026, 3, 2), end=date(2026, 3, 9))


def test_covered_days_end_at_the_midnight_after_the_newest_row() -> None:
    def at(day: int, hour: int) -> datetime:
        return datetime(2026, 3, day, hour, tzinfo=UTC)

    days = covered_days([(at(4, 5), at(6, 23)), (at(2, 0), at(3, 1))])
    assert days == Days(start=date(2026, 3, 2), end=date(2026, 3, 7))
    assert covered_days([(at(4, 0), at(4, 0))]) == Days(start=date(2026, 3, 4), end=date(2026, 3, 5))
    assert covered_days([]) is None


def test_of_several_predictions_for_a_payment_the_first_counts_whatever_the_order() -> None:
    predictions = pd.DataFrame(
        {
            PREDICTION_ID: ["a", "b", "c", "d", "e"],
            PREDICTED_AT: pd.to_datetime([1, 3, 2, 1, 1], unit="s", utc=True),
            "transaction_id": [7, 7, 7, 8, 8],
            "score": [0.1, 0.3, 0.2, 0.9, 0.8],
        }
    )
    for order in (predictions, predictions.iloc[::-1]):
        rows = first_made(order, ["transaction_id"]).sort_values("transaction_id")
        assert rows[["transaction_id", "score"]].values.tolist() == [[7, 0.1], [8, 0.9]]


def test_representatives_have_the_distribution_of_all_values() -> None:
    random = np.random.default_rng(0)
    values = random.gamma(2, 10, 50_000)
    classes = random.choice(np.array(["on time", "late", "cancelled"], dtype=object), 50_000, p=[0.77, 0.2, 0.03])
    found = representatives({"value": values, "class": classes, "few": values[:3]})
    assert np.quantile(found["value"], [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(values, [0.1, 0.5, 0.9]), rel=0.01)
    assert {name: found["class"].count(name) for name in set(classes)} == pytest.approx(
        {"on time": 770, "late": 200, "cancelled": 30}, abs=5
    )
    assert found["few"] == sorted(values[:3])


@pytest.mark.parametrize("rows", [1, 999, 1000, 1500, 20_000])
def test_outputs_are_spread_over_any_number_of_rows(rows: int) -> None:
    made = with_outputs(
        pd.DataFrame({"x": range(rows)}, index=range(7, 7 + rows)), pd.DataFrame({"_value": np.arange(1000.0)})
    )
    assert list(made) == ["x", "_value"]
    assert made["_value"].mean() == pytest.approx(499.5, abs=1)
    assert len(spread(np.arange(5), 0)) == 0


@pytest.mark.parametrize("seasons", [("day_of_week",), ("hour_of_day",), ("day_of_week", "hour_of_day")])
def test_the_reference_gets_the_mix_of_days_and_hours_of_the_window(seasons: tuple[str, ...]) -> None:
    random = np.random.default_rng(0)

    def rows(start: str, days: int, night: float) -> Rows:
        hours = np.where(random.random(20_000) < night, random.integers(0, 6, 20_000), random.integers(6, 24, 20_000))
        times = pd.Timestamp(start, tz="UTC") + pd.to_timedelta(24 * random.integers(0, days, 20_000) + hours, unit="h")
        return Rows(pd.DataFrame({"x": np.arange(20_000)}), pd.DataFrame({"time": times}))

    # Three days from a Monday on, with more rows by night, against two whole weeks.
    reference, current = rows("2026-01-05", 14, 0.1), rows("2026-03-02", 3, 0.4)
    old, new = matched(reference, current, "time", seasons)
    assert old.keys is not None
    assert len(new.columns) == 20_000
    assert 1000 < len(old.columns) < 20_000
    assert old.columns["x"].is_unique
    times = pd.DatetimeIndex(old.keys["time"])
    if "day_of_week" in seasons:
        assert set(times.dayofweek) == {0, 1, 2}
    if "hour_of_day" in seasons:
        assert (times.hour < 6).mean() == pytest.approx(0.4, abs=0.02)
    assert matched(reference, current, "time", ("year",)) == (reference, current)
    unknown = reference._replace(keys=None)
    assert matched(unknown, current, "time", seasons) == (unknown, current)


def test_parts_of_the_week_without_a_reference_are_not_compared() -> None:
    def rows(start: str, days: int) -> Rows:
        times = pd.date_range(start, periods=24 * days * 10, freq="6min", tz="UTC")
        return Rows(pd.DataFrame({"x": range(len(times))}), pd.DataFrame({"time": times}))

    old, new = matched(rows("2026-01-05", 5), rows("2026-03-02", 7), "time", ("day_of_week",))
    assert (len(old.columns), len(new.columns)) == (5 * 240, 5 * 240)
    none = rows("2026-01-10", 2), rows("2026-03-02", 3)
    assert matched(*none, "time", ("day_of_week",)) == none
