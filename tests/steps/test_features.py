"""The features step: which days it writes, and that it may be killed and run again."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from tests.feature_repo.payments_and_features import MODEL, SOURCE, compute, day, midnight, payments, put, rows_of
from tests.feature_repo.written_by_hand import copy_by_hand
from training.adapters.lake import Lake
from training.contract.base import Days
from training.contract.errors import InputError, TransientError
from training.contract.messages import FeaturesInputs
from training.settings import Settings
from training.steps import features

TABLES = ["customer_features", "terminal_features"]


def run(settings: Settings, first: int | None, end: int = 0) -> dict[str, int]:
    versions = Lake(settings.lake, SOURCE, MODEL).versions("events", "labels")
    days = None if first is None else Days(start=day(first), end=day(end))
    return features.run(FeaturesInputs(source=SOURCE, days=days, table_versions=versions), settings).rows


def everything(settings: Settings) -> list[pd.DataFrame]:
    return [rows_of(settings, table) for table in TABLES]


def same(left: list[pd.DataFrame], right: list[pd.DataFrame]) -> None:
    for a, b in zip(left, right, strict=True):
        pd.testing.assert_frame_equal(a, b)


def test_the_result_counts_rows_and_names_what_was_read_and_written(settings: Settings) -> None:
    put(settings, *payments(10))
    versions = Lake(settings.lake, SOURCE, MODEL).versions("events", "labels")
    inputs = FeaturesInputs(source=SOURCE, days=Days(start=day(0), end=day(11)), table_versions=versions)
    result = features.run(inputs, settings)
    assert result.rows == {table: len(rows_of(settings, table)) for table in TABLES}
    assert result.table_versions == Lake(settings.lake, SOURCE, MODEL).versions("events", "labels", *TABLES)
    assert result.as_of == max(rows_of(settings, table)["day"].max() for table in TABLES)


def test_no_days_is_nothing_to_do(settings: Settings) -> None:
    put(settings, *payments(3))
    run(settings, 0, 4)
    versions = Lake(settings.lake, SOURCE, MODEL).versions(*TABLES)
    assert run(settings, None) == {"customer_features": 0, "terminal_features": 0}
    assert Lake(settings.lake, SOURCE, MODEL).versions(*TABLES) == versions


def test_before_the_first_events_there_is_nothing_to_do(settings: Settings) -> None:
    result = features.run(FeaturesInputs(source=SOURCE, days=None, table_versions={"labels": 0}), settings)
    assert result.rows == {"customer_features": 0, "terminal_features": 0}
    assert Lake(settings.lake, SOURCE, MODEL).versions(*TABLES) == {}


def test_days_that_have_not_happened_are_left_out(settings: Settings) -> None:
    put(settings, *payments(10))
    run(settings, 0, 48)
    for rows in everything(settings):
        assert rows["day"].max() == day(10)
    assert run(settings, 11, 48) == {"customer_features": 0, "terminal_features": 0}


@pytest.mark.ci
def test_sql_may_read_a_column_of_which_no_file_has_landed_yet(settings: Settings, tmp_path: Path) -> None:
    put(settings, *payments(10))
    run(settings, 0, 11)
    before = everything(settings)
    repo = tmp_path / "repo"
    copy_by_hand(repo)
    sql = (repo / f"{SOURCE}.sql").read_text()
    (repo / f"{SOURCE}.sql").write_text(sql.replace("    FROM events\n", "    FROM events WHERE channel IS NULL\n"))
    spec = yaml.safe_load((repo / f"{SOURCE}.yaml").read_text())
    spec["feeds"]["events"]["columns"]["channel"] = {"type": "string", "nullable": True}
    (repo / f"{SOURCE}.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    changed = settings.model_copy(update={"feature_repo": repo})
    assert run(changed, 0, 11)["customer_features"] == len(before[0])
    same(everything(changed), before)


def test_run_twice_is_run_once(settings: Settings) -> None:
    put(settings, *payments(10))
    run(settings, 0, 11)
    once = everything(settings)
    run(settings, 0, 11)
    same(everything(settings), once)


@pytest.mark.ci
def test_day_by_day_in_any_order_is_all_at_once(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    events, labels = payments(20, delays=(7, 9))
    put(settings, events, labels)
    for n in (3, 20, 0, 11, 4, 12):
        run(settings, n, min(n + 6, 21))
    run(settings, 0, 20)
    elsewhere = Settings(home=tmp_path_factory.mktemp("elsewhere"))
    put(elsewhere, events, labels)
    compute(elsewhere, 0, 21)
    same(everything(settings), everything(elsewhere))


def test_a_late_partition_changes_the_days_that_it_affects(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    events, labels = payments(30)
    late = events["event_time"].dt.date == day(10)
    put(settings, events[~late], labels[~late])
    run(settings, 0, 31)
    put(settings, events[late], labels[late], partition="late")
    run(settings, 11, 11 + 38)
    elsewhere = Settings(home=tmp_path_factory.mktemp("elsewhere"))
    put(elsewhere, events, labels)
    compute(elsewhere, 0, 31)
    same(everything(settings), everything(elsewhere))


@pytest.mark.ci
def test_a_correction_changes_the_days_after_its_report_alone(settings: Settings) -> None:
    events, labels = payments(30, fraud=0)
    put(settings, events, labels)
    run(settings, 0, 31)
    before = rows_of(settings, "terminal_features")
    wrong = labels[labels["reported_at"].dt.date == day(20)]
    correction = wrong.assign(is_fraud=1, reported_at=wrong["reported_at"] + timedelta(days=5))
    put(settings, events.iloc[:0], correction, partition="correction")
    run(settings, 26, 26 + 38)
    after = rows_of(settings, "terminal_features")
    counts = ["terminal_id", "day", "terminal_count_1d", "terminal_count_7d", "terminal_count_30d"]
    pd.testing.assert_frame_equal(after[counts], before[counts])
    assert (after[after["day"] <= day(25)]["terminal_fraud_share_30d"] == 0).all()
    corrected = after[after["day"] == day(26)].set_index("terminal_id")
    frauds = (corrected["terminal_fraud_share_30d"] * corrected["terminal_count_30d"]).sum()
    assert frauds == pytest.approx(len(correction))


@pytest.mark.ci
def test_an_old_run_that_is_run_again_does_not_undo_a_late_partition(settings: Settings) -> None:
    events, labels = payments(20)
    late = events["event_time"].dt.date == day(10)
    old = put(settings, events[~late], labels[~late])
    inputs = FeaturesInputs(source=SOURCE, days=Days(start=day(0), end=day(21)), table_versions=old)
    first = features.run(inputs, settings)
    put(settings, events[late], labels[late], partition="late")
    run(settings, 11, 49)
    want = everything(settings)
    again = features.run(inputs, settings)
    same(everything(settings), want)
    assert first.table_versions["events"] == old["events"] < again.table_versions["events"]


def test_before_the_first_labels_terminals_have_none(settings: Settings) -> None:
    events, labels = payments(10)
    put(settings, events, labels)
    inputs = FeaturesInputs(source=SOURCE, days=Days(start=day(0), end=day(11)), table_versions={"events": 1})
    features.run(inputs, settings)
    rows = rows_of(settings, "terminal_features")
    assert len(rows) > 0
    assert (rows["terminal_count_30d"] == 0).all()


@pytest.mark.ci
def test_the_first_labels_are_no_changed_definition(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    put(settings, *payments(10))
    versions = Lake(settings.lake, SOURCE, MODEL).versions("events", "labels")
    for read in ({"events": versions["events"]}, versions):
        days = Days(start=day(0), end=day(11))
        features.run(FeaturesInputs(source=SOURCE, days=days, table_versions=read), settings)
    assert "terminal_features is made of labels, too, from now on" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_pinned_versions_are_read_not_the_newest(settings: Settings) -> None:
    events, labels = payments(10)
    pinned = put(settings, events, labels)
    put(settings, events.assign(amount=1.0), labels)
    inputs = FeaturesInputs(source=SOURCE, days=Days(start=day(5), end=day(6)), table_versions=pinned)
    features.run(inputs, settings)
    assert (rows_of(settings, "customer_features")["customer_mean_30d"] > 1).all()


def test_events_of_another_zone_and_the_machines_zone_do_not_matter(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_the_edge = payments(1, per_day=1)[0].assign(event_time=[pd.Timestamp(midnight(5)) - timedelta(microseconds=1)])
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    put(settings, at_the_edge, payments(1, per_day=1)[1])
    run(settings, 4, 7)
    assert rows_of(settings, "customer_features")["day"].tolist() == [day(5)]


@pytest.mark.ci
def test_killed_between_two_tables_and_run_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    put(settings, *payments(10))
    run(settings, 0, 8)
    replace = Lake.replace

    def refuse(self: Lake, table: str, rows: pa.Table, *args: object, **kwargs: object) -> int:
        if table == "terminal_features":
            raise TransientError("The store is gone")
        return replace(self, table, rows, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "replace", refuse)
        with pytest.raises(TransientError):
            run(settings, 0, 11)
    run(settings, 0, 11)
    customers, terminals = everything(settings)
    assert set(customers["day"]) == set(terminals["day"]) == {day(n) for n in range(1, 11)}
    assert not customers.duplicated(["customer_id", "day"]).any()
    assert not terminals.duplicated(["terminal_id", "day"]).any()


@pytest.mark.parametrize(
    ("versions", "said"), [({}, "events"), ({"events": 77}, "77"), ({"events": 1, "labels": 77}, "77")]
)
def test_versions_that_do_not_exist_are_input_errors(settings: Settings, versions: dict[str, int], said: str) -> None:
    put(settings, *payments(3))
    inputs = FeaturesInputs(source=SOURCE, days=Days(start=day(1), end=day(2)), table_versions=versions)
    with pytest.raises(InputError, match=said):
        features.run(inputs, settings)


@pytest.mark.long
def test_the_step_starts_without_feast() -> None:
    code = "import sys, training.steps.features; print([m for m in ('feast', 'mlflow', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
