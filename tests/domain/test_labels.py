"""Which of several reports is an event's label, and what silence means."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from training.contract.model_spec import ModelSpec
from training.domain.frames import LABEL, REPORTED_AT
from training.domain.labels import implied_reports, known_before, labelled, newest, one_per_report

T = datetime(2026, 1, 10, tzinfo=UTC)
DAY = timedelta(days=1)


def reports(*rows: tuple[int, int, datetime, str]) -> pa.Table:
    names = ["transaction_id", "is_fraud", "reported_at", "partition"]
    types = [pa.int64(), pa.int64(), pa.timestamp("us", "UTC"), pa.string()]
    columns = list(zip(*rows, strict=True)) or [[]] * 4
    return pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=names)


@pytest.mark.parametrize(
    ("rows", "label"),
    [
        ([(1, 1, T, "a"), (1, 0, T + DAY, "a")], 0),  # the newest
        ([(1, 0, T + DAY, "a"), (1, 1, T, "b")], 0),  # whatever its partition
        ([(1, 1, T, "2026-01-05_2026-01-14"), (1, 0, T, "2026-01-10")], 0),  # of equal times the last partition
        ([(1, 0, T, "a"), (1, 1, T, "b")], 1),
        ([(1, 0, T, "a"), (1, 1, T, "a"), (1, 0, T, "a")], 1),  # of equal partitions the largest label
    ],
)
def test_one_report_counts_in_whatever_order_they_lie(spec: ModelSpec, rows: list[Any], label: int) -> None:
    for order in permutations(rows):
        found = newest(reports(*order, (2, 0, T, "a")), spec.label_spec)
        assert found.set_index("transaction_id")[LABEL].to_dict() == {1: label, 2: 0}
        # SQL sees one report for each time, and the newest of these is the same.
        last = one_per_report(reports(*order), [spec.label_spec]).to_pandas().groupby("reported_at")["is_fraud"]
        assert set(last.count()) == {1}
        assert last.last().iloc[-1] == label


def test_no_report_at_all(spec: ModelSpec) -> None:
    assert newest(reports(), spec.label_spec).empty
    assert one_per_report(reports(), [spec.label_spec]).num_rows == 0


def negative(spec: ModelSpec) -> ModelSpec:
    label = spec.source.labels["is_fraud"]
    label = label.model_copy(update={"unlabelled_after_delay": "negative", "delay_days": 2})
    return spec.model_copy(update={"source": spec.source.model_copy(update={"labels": {"is_fraud": label}})})


EVENTS = pd.DataFrame({"transaction_id": [1, 2, 3, 4], "event_time": pd.DatetimeIndex([T] * 3 + [T + 5 * DAY])})


def test_silence_is_negative_once_the_delay_has_passed(spec: ModelSpec) -> None:
    # 1 is reported in time, 2 too late: until then it counts as negative. 3 never is. 4 may still be.
    all_of_them = reports((1, 1, T + DAY, "a"), (2, 1, T + 4 * DAY, "a"))

    def at(until: datetime, rule: ModelSpec) -> dict[int, int]:
        known = newest(all_of_them.filter(pa.compute.less(all_of_them["reported_at"], until)), spec.label_spec)
        found = labelled(EVENTS, known, rule, until)
        return dict(zip(found["transaction_id"], found[LABEL], strict=True))

    rule = negative(spec)
    assert at(T + 2 * DAY, rule) == {1: 1}  # reported before the horizon, like any label
    assert at(T + 3 * DAY, rule) == {1: 1, 2: 0, 3: 0}
    assert at(T + 5 * DAY, rule) == {1: 1, 2: 1, 3: 0}
    assert at(T + 5 * DAY, spec) == {1: 1, 2: 1}
    found = labelled(EVENTS, newest(all_of_them, spec.label_spec), rule, T + 6 * DAY)
    assert found[REPORTED_AT].tolist() == [T + DAY, T + 4 * DAY, T + 2 * DAY]
    assert found[LABEL].dtype == "int64"


def test_silence_is_false_among_booleans_that_may_be_null(spec: ModelSpec) -> None:
    columns = {"transaction_id": [1, 2], "is_fraud": [True, None], "reported_at": [T + DAY] * 2, "partition": ["a"] * 2}
    known = newest(pa.table(columns), spec.label_spec)
    found = labelled(EVENTS, known, negative(spec), T + 9 * DAY)[["transaction_id", LABEL]]
    stored = pa.Table.from_pandas(found, preserve_index=False)
    assert stored.schema.field(LABEL).type == pa.bool_()
    assert dict(zip(*stored.to_pydict().values(), strict=True)) == {1: True, 3: False, 4: False}


def test_the_reports_that_sql_sees_say_the_same(spec: ModelSpec) -> None:
    events = pa.Table.from_pandas(EVENTS, preserve_index=False)
    said = reports((1, 1, T + 2 * DAY, "a"), (2, 1, T + 4 * DAY, "a"))
    found = implied_reports(events, "event_time", said, [negative(spec).label_spec], T + 6 * DAY).to_pylist()
    assert [(row["transaction_id"], row["is_fraud"], row["reported_at"]) for row in found] == [
        (2, 0, T + 2 * DAY),
        (3, 0, T + 2 * DAY),
    ]


def test_names_that_both_feeds_use_do_not_meet(spec: ModelSpec) -> None:
    events = EVENTS.assign(is_fraud=None, reported_at=None, customer_id=7, partition="x", known=1)
    known = newest(reports((1, 1, T, "a")), spec.label_spec)
    found = labelled(events, known, spec, T + DAY)
    assert found[[*events.columns, LABEL]].shape == (1, len(events.columns) + 1)
    assert known_before(events, known, events, spec).tolist() == [False, False, False, True]
