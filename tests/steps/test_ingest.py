"""Ingest: what enters the lake, what is quarantined, what is refused, and that a kill changes none of it."""

import json
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from testing.step_process import killed_after
from tests.cases import others_in_ci
from tests.steps.ingest_helpers import FIRST, GENERATOR, SOURCE, Deliveries, changed, day, first
from training.adapters.lake import EVENTS, QUARANTINE, Lake
from training.contract.base import Days
from training.contract.errors import DataContractError, ExitCode, InputError, TransientError
from training.contract.messages import IngestInputs
from training.domain.partitions import partition_name
from training.settings import Settings
from training.steps.ingest import run


@pytest.fixture
def deliveries(settings: Settings) -> Deliveries:
    return Deliveries(settings)


# --- what enters ---


def test_a_good_partition_enters_whole_and_its_page_is_written(deliveries: Deliveries) -> None:
    rows = GENERATOR.events(FIRST)
    result = deliveries.deliver(rows, "2026-01-05")
    kept = deliveries.lake.scan(EVENTS).to_table()
    assert kept.drop_columns("partition").sort_by("transaction_id").equals(rows)
    assert set(kept["partition"].to_pylist()) == {"2026-01-05"}
    assert (result.outcome, result.rows_read, result.rows_kept, result.rows_quarantined) == (
        "appended",
        rows.num_rows,
        rows.num_rows,
        0,
    )
    assert result.table_versions == {EVENTS: deliveries.lake.version(EVENTS)}
    assert result.affected == Days(start=day(1), end=day(2))
    assert result.data_docs is not None
    assert "Great Expectations" in Path(result.data_docs).read_text()


def test_casts_that_lose_nothing_are_made(deliveries: Deliveries) -> None:
    rows = GENERATOR.events(FIRST)
    small = pa.schema(
        [
            ("transaction_id", pa.float64()),
            ("event_time", pa.timestamp("ns", tz="Europe/Paris")),
            ("customer_id", pa.int16()),
            ("terminal_id", pa.uint32()),
            ("amount", pa.float64()),
        ]
    )
    deliveries.deliver(rows.cast(small).append_column("note", pa.repeat("new", rows.num_rows)), "2026-01-05")
    kept = deliveries.lake.scan(EVENTS).to_table()
    assert kept.drop_columns("partition").sort_by("transaction_id").equals(rows)


def test_labels_of_unknown_payments_are_kept(deliveries: Deliveries) -> None:
    result = deliveries.labels(7)
    assert result.rows_kept == GENERATOR.labels(day(7)).num_rows
    assert result.affected is None


def test_a_load_of_history_enters_as_one_partition(deliveries: Deliveries) -> None:
    rows = pa.concat_tables([GENERATOR.events(day(n)) for n in range(4)])
    result = deliveries.deliver(rows, "2026-01-05_2026-01-08")
    assert result.rows_kept == rows.num_rows
    assert result.affected == Days(start=day(1), end=day(5))


# --- quarantine ---


def test_rows_that_break_rules_are_quarantined_with_every_reason(deliveries: Deliveries) -> None:
    rows = changed(GENERATOR.events(FIRST), "amount", first(-1.0, None, 2e5, 1.0))
    rows = changed(rows, "customer_id", first(-5, None))
    tomorrow = datetime(2026, 1, 6, tzinfo=UTC)
    rows = changed(rows, "event_time", lambda times: [*times[:4], tomorrow, *times[5:]])
    result = deliveries.deliver(rows, "2026-01-05")
    quarantined = deliveries.rows(QUARANTINE)
    reasons = {json.loads(row["row"])["transaction_id"]: row["reason"].split("; ") for row in quarantined}
    ids = rows["transaction_id"].to_pylist()
    assert {key: set(value) for key, value in reasons.items()} == {
        ids[0]: {"amount is outside 0 … 100000", "customer_id is below 0"},
        ids[1]: {"amount is missing", "customer_id is missing"},
        ids[2]: {"amount is outside 0 … 100000"},
        ids[4]: {"event_time is outside 2026-01-05"},
    }
    assert result.quarantine_reasons["amount is outside 0 … 100000"] == 2
    assert (result.rows_quarantined, result.rows_kept) == (4, rows.num_rows - 4)
    kept = {row["transaction_id"] for row in deliveries.rows(EVENTS)}
    assert kept == set(ids) - set(reasons)


def test_a_value_outside_its_set_is_quarantined(deliveries: Deliveries) -> None:
    result = deliveries.deliver(changed(GENERATOR.labels(day(7)), "is_fraud", first(2)), "2026-01-12", "labels")
    assert result.quarantine_reasons == {"is_fraud is none of 0, 1": 1}


def test_copies_keep_the_first_and_contradictions_none(deliveries: Deliveries) -> None:
    rows = GENERATOR.events(FIRST)
    contradiction = changed(rows.slice(1, 1), "amount", lambda _: [1.23])
    result = deliveries.deliver(pa.concat_tables([rows, rows.slice(0, 1), contradiction]), "2026-01-05")
    assert result.quarantine_reasons == {"transaction_id is not unique": 3}
    kept = [row["transaction_id"] for row in deliveries.rows(EVENTS)]
    ids = rows["transaction_id"].to_pylist()
    assert kept.count(ids[0]) == 1
    assert kept.count(ids[1]) == 0


def test_a_payment_from_another_partition_is_quarantined(deliveries: Deliveries) -> None:
    deliveries.events(0)
    rows = changed(
        GENERATOR.events(day(1)), "transaction_id", first(GENERATOR.events(FIRST)["transaction_id"][3].as_py())
    )
    result = deliveries.deliver(rows, "2026-01-06")
    assert result.quarantine_reasons == {"transaction_id is in partition 2026-01-05 already": 1}
    ids = [row["transaction_id"] for row in deliveries.rows(EVENTS)]
    assert len(ids) == len(set(ids))


@pytest.fixture
def given_way(deliveries: Deliveries) -> pa.Table:
    """The second day's file, one row of which is in quarantine: the first day came with the same payment."""
    rows = GENERATOR.events(day(1))
    taken = rows["transaction_id"][3].as_py()
    deliveries.deliver(changed(GENERATOR.events(FIRST), "transaction_id", first(taken)), "2026-01-05")
    assert deliveries.deliver(rows, "2026-01-06").rows_quarantined == 1
    return rows


def test_a_row_that_gave_way_enters_with_the_same_file_once_the_other_is_gone(
    deliveries: Deliveries, given_way: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    deliveries.events(0)
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "1 rows of 2026-01-06 were quarantined as duplicates of rows that 2026-01-05 no longer holds" in warning
    result = deliveries.deliver(given_way, "2026-01-06")
    assert (result.outcome, result.rows_kept, result.rows_quarantined) == ("replaced", given_way.num_rows, 0)
    assert result.affected == Days(start=day(2), end=day(3))
    assert deliveries.rows(QUARANTINE) == []
    assert deliveries.deliver(given_way, "2026-01-06").outcome == "unchanged"


@pytest.mark.ci
def test_a_row_whose_other_is_still_there_stays_in_quarantine(
    deliveries: Deliveries, given_way: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    corrected = changed(GENERATOR.events(FIRST), "transaction_id", first(given_way["transaction_id"][3].as_py()))
    deliveries.deliver(changed(corrected, "amount", first(1.0, 2.0)), "2026-01-05")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    before = deliveries.rows(EVENTS), deliveries.rows(QUARANTINE)
    deliveries.deliver(given_way, "2026-01-06")
    assert (deliveries.rows(EVENTS), deliveries.rows(QUARANTINE)) == before


@pytest.mark.ci
def test_killed_before_its_warning_a_replacement_warns_when_run_again(
    deliveries: Deliveries, given_way: pa.Table, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pc, "match_substring", crash)
        with pytest.raises(KeyboardInterrupt):
            deliveries.events(0)
    assert deliveries.events(0).outcome == "unchanged"
    assert "2026-01-06 were quarantined as duplicates" in caplog.text


def test_a_label_reported_again_is_a_correction_and_enters(deliveries: Deliveries) -> None:
    first_report = GENERATOR.labels(day(7))
    known, was = (first_report[name][0].as_py() for name in ("transaction_id", "is_fraud"))
    deliveries.labels(7)
    rows = changed(GENERATOR.labels(day(8)), "transaction_id", first(known))
    result = deliveries.deliver(changed(rows, "is_fraud", first(1 - was)), str(day(8)), "labels")
    assert (result.rows_kept, result.rows_quarantined) == (rows.num_rows, 0)
    reports = [row for row in deliveries.rows("labels") if row["transaction_id"] == known]
    assert {row["partition"]: row["is_fraud"] for row in reports} == {str(day(7)): was, str(day(8)): 1 - was}


# --- refusal ---


@pytest.fixture(scope="module")
def after_one_day(tmp_path_factory: pytest.TempPathFactory) -> Deliveries:
    """One day is in the lake; whoever shares this adds nothing to it."""
    deliveries = Deliveries(Settings(home=tmp_path_factory.mktemp("after_one_day")))
    deliveries.events(0)
    return deliveries


def wrong_type(rows: pa.Table) -> pa.Table:
    return rows.set_column(4, "amount", rows["amount"].cast(pa.string()))


def fractional(rows: pa.Table) -> pa.Table:
    return rows.set_column(2, "customer_id", pc.add(rows["customer_id"].cast(pa.float64()), 0.5))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (wrong_type, "column amount is not of type float64"),
        (fractional, "customer_id is not a whole number: "),
        (lambda rows: rows.drop_columns("terminal_id"), "column terminal_id is missing"),
        (lambda rows: rows.drop_columns("event_time"), "column event_time is missing"),
        pytest.param(lambda rows: rows.slice(0, 0), "2026-01-06: 0 rows, expected", marks=pytest.mark.ci),
        (lambda rows: rows.slice(0, 30), "2026-01-06: 30 rows, expected"),
        pytest.param(lambda rows: pa.concat_tables([rows] * 4), "rows, expected", marks=pytest.mark.ci),
        (
            lambda rows: changed(rows, "amount", lambda values: [-1.0] * 20 + values[20:]),
            "amount is outside 0 … 100000: 20",
        ),
        pytest.param(lambda rows: GENERATOR.events(FIRST), "2026-01-06: 0 rows, expected", marks=pytest.mark.ci),
        (lambda rows: rows.append_column("amount", rows["amount"]), "several columns with the name amount"),
    ],
)
def test_a_partition_that_breaks_a_table_rule_is_refused_whole(
    after_one_day: Deliveries, spoil: Callable[[pa.Table], pa.Table], said: str
) -> None:
    before = after_one_day.lake.versions(EVENTS, QUARANTINE)
    with pytest.raises(DataContractError, match="2026-01-06") as refusal:
        after_one_day.deliver(spoil(GENERATOR.events(day(1))), "2026-01-06")
    assert said in str(refusal.value)
    assert refusal.value.exit_code == ExitCode.DATA_CONTRACT
    assert after_one_day.lake.versions(EVENTS, QUARANTINE) == before


def on_days(number: int, count: int = 1) -> pa.Table:
    return pa.concat_tables([GENERATOR.events(day(n)) for n in range(number, number + count)])


def test_a_partition_far_ahead_of_the_lake_is_refused(after_one_day: Deliveries) -> None:
    before = after_one_day.lake.versions(EVENTS, QUARANTINE)
    with pytest.raises(DataContractError, match=r"2026-01-13 is 8 days after 2026-01-05.*is 7") as refusal:
        after_one_day.deliver(on_days(8, 2), "2026-01-13_2026-01-14")
    assert "feeds.events.maximum_gap_days" in refusal.value.hint
    assert after_one_day.lake.versions(EVENTS, QUARANTINE) == before


def test_a_load_of_days_that_leaps_ahead_on_its_way_is_refused(deliveries: Deliveries) -> None:
    """Without a minimum of rows a day may have none, and the days after them may be dated by a wrong clock."""
    deliveries.respec(lambda feeds: feeds["events"].update(row_count={"minimum": 0, "minimum_ratio": 0}))
    rows = pa.concat_tables([on_days(0), on_days(20)])
    with pytest.raises(DataContractError, match="2026-01-25 is 20 days after 2026-01-05"):
        deliveries.deliver(rows, "2026-01-05_2026-01-25")


def test_a_file_of_other_days_than_its_name_says_so(after_one_day: Deliveries) -> None:
    with pytest.raises(DataContractError) as refusal:
        after_one_day.deliver(on_days(2, 2), "2026-01-06")
    assert "2026-01-06: 0 rows, expected" in refusal.value.message
    assert f"{on_days(2, 2).num_rows:,} rows are of other days, 2026-01-07 … 2026-01-08" in refusal.value.message


@pytest.mark.ci
def test_a_gap_is_judged_against_the_other_partitions_of_the_feed_alone(deliveries: Deliveries) -> None:
    """The first may be any, and 7 days ahead or any before may follow; what a partition holds itself says nothing."""
    deliveries.events(100)
    deliveries.labels(7)
    deliveries.events(107)
    deliveries.events(0)
    assert deliveries.deliver(changed(on_days(107), "amount", first(1.0)), str(day(107))).outcome == "replaced"
    assert {row["partition"] for row in deliveries.rows(EVENTS)} == {str(day(n)) for n in (0, 100, 107)}


@pytest.mark.parametrize("part", others_in_ci([0.5, 0.0, 0.99]))
def test_a_truncated_file_is_refused(deliveries: Deliveries, part: float) -> None:
    inputs = deliveries.land(GENERATOR.events(FIRST), "2026-01-05")
    content = Path(inputs.uri).read_bytes()
    Path(inputs.uri).write_bytes(content[: int(len(content) * part)])
    with pytest.raises(DataContractError, match="not a readable Parquet file"):
        run(inputs, deliveries.settings)
    assert deliveries.lake.version(EVENTS) is None


def test_a_day_missing_inside_a_load_of_history_is_refused(deliveries: Deliveries) -> None:
    rows = pa.concat_tables([GENERATOR.events(day(n)) for n in (0, 1, 3)])
    with pytest.raises(DataContractError, match="2026-01-07: 0 rows"):
        deliveries.deliver(rows, "2026-01-05_2026-01-08")


def test_a_refused_correction_leaves_the_rows_that_were_there(deliveries: Deliveries) -> None:
    deliveries.events(0)
    before = deliveries.rows(EVENTS)
    with pytest.raises(DataContractError):
        deliveries.deliver(wrong_type(GENERATOR.events(FIRST)), "2026-01-05")
    assert deliveries.rows(EVENTS) == before


def test_a_missing_file_and_an_impossible_day_are_bad_input(deliveries: Deliveries) -> None:
    with pytest.raises(InputError, match="There is no file"):
        run(IngestInputs(source=SOURCE, feed="events", partition="2026-01-05", uri="/nowhere"), deliveries.settings)
    with pytest.raises(InputError, match="2026-02-30"):
        run(IngestInputs(source=SOURCE, feed="events", partition="2026-02-30", uri="/nowhere"), deliveries.settings)


# --- order, repetition, correction ---


def test_the_same_file_again_changes_nothing_and_names_the_same_days(deliveries: Deliveries) -> None:
    rows = changed(GENERATOR.events(FIRST), "amount", first(-1.0))
    once = deliveries.deliver(rows, "2026-01-05")
    again = deliveries.deliver(rows, "2026-01-05")
    assert again == once.model_copy(update={"outcome": "unchanged"})


def test_a_corrected_file_takes_the_place_of_the_first(deliveries: Deliveries) -> None:
    deliveries.events(1)
    deliveries.deliver(changed(GENERATOR.events(FIRST), "amount", first(-1.0, -2.0)), "2026-01-05")
    corrected = changed(GENERATOR.events(FIRST), "amount", first(10.0, 20.0))
    result = deliveries.deliver(corrected, "2026-01-05")
    assert result.outcome == "replaced"
    assert result.affected == Days(start=day(1), end=day(3))
    assert deliveries.rows(QUARANTINE) == []
    kept = deliveries.lake.scan(EVENTS).to_table(filter=pc.field("partition") == "2026-01-05")
    assert kept.drop_columns("partition").sort_by("transaction_id").equals(corrected)
    assert len(deliveries.rows(EVENTS)) == corrected.num_rows + GENERATOR.events(day(1)).num_rows


def test_partitions_in_any_order_make_the_same_tables(settings: Settings, tmp_path: Path) -> None:
    in_order, backwards = (Deliveries(Settings(home=tmp_path / name)) for name in ("in_order", "backwards"))
    steps = [("events", 0), ("events", 1), ("labels", 8)]
    for feed, number in steps:
        getattr(in_order, feed)(number)
    for feed, number in reversed(steps):
        getattr(backwards, feed)(number)
    for table in (EVENTS, "labels"):
        assert in_order.rows(table) == backwards.rows(table)


def test_late_partitions_name_the_days_up_to_the_newest_events(deliveries: Deliveries) -> None:
    deliveries.events(0)
    # The days 2 and 3 have no events yet, but their feature rows are due.
    assert deliveries.events(4).affected == Days(start=day(2), end=day(6))
    assert deliveries.events(2).affected == Days(start=day(2), end=day(6))
    assert deliveries.labels(3).affected == Days(start=day(4), end=day(6))
    assert deliveries.labels(5).affected is None


@pytest.mark.ci
def test_a_correction_that_ends_earlier_names_the_days_that_lose_their_features(deliveries: Deliveries) -> None:
    deliveries.respec(lambda feeds: feeds["events"].update(row_count={"minimum": 0, "minimum_ratio": 0}))
    deliveries.events(0)
    span = pa.concat_tables([GENERATOR.events(day(n)) for n in (1, 2, 3)])
    assert deliveries.deliver(span, "2026-01-06_2026-01-08").affected == Days(start=day(2), end=day(5))
    assert deliveries.deliver(GENERATOR.events(day(1)), "2026-01-06_2026-01-08").affected == Days(
        start=day(2), end=day(5)
    )
    assert deliveries.deliver(span.slice(0, 0), "2026-01-06_2026-01-08").affected == Days(start=day(2), end=day(5))
    assert deliveries.deliver(span.slice(0, 0), "2026-01-05").affected == Days(start=day(1), end=day(2))


# --- kills ---


def crash(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def test_killed_between_its_commits_it_heals_when_run_again(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = changed(GENERATOR.events(FIRST), "amount", first(-1.0))
    inputs = deliveries.land(rows, "2026-01-05")
    replace = Lake.replace_partition

    def replace_only_quarantine(lake: Lake, table: str, *args: object) -> int:
        return replace(lake, table, *args) if table == QUARANTINE else crash()

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "replace_partition", replace_only_quarantine)
        with pytest.raises(KeyboardInterrupt):
            run(inputs, deliveries.settings)
    assert deliveries.lake.version(EVENTS) is None
    result = run(inputs, deliveries.settings)
    assert (result.outcome, result.rows_kept) == ("appended", rows.num_rows - 1)
    assert len(deliveries.rows(QUARANTINE)) == 1


def test_killed_before_its_report_it_names_the_same_days_when_run_again(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries.events(0)
    inputs = deliveries.land(GENERATOR.events(day(2)), "2026-01-07")
    with monkeypatch.context() as patch:
        patch.setattr(Lake, "versions", crash)
        with pytest.raises(KeyboardInterrupt):
            run(inputs, deliveries.settings)
    deliveries.events(3)
    result = run(inputs, deliveries.settings)
    assert result.outcome == "unchanged"
    assert result.affected == Days(start=day(2), end=day(5))


@pytest.mark.ci
def test_sigkill_at_any_moment_and_a_rerun_leave_every_row_once(deliveries: Deliveries) -> None:
    """Real processes, killed at random times while they replace one version of a partition by another."""
    chance = random.Random(7)

    def ingest_in_a_process(inputs: IngestInputs, kill_after: float | None) -> float:
        return killed_after(run, (inputs, deliveries.settings), kill_after)

    whole = min(ingest_in_a_process(deliveries.land(version(-n), "2026-01-05"), None) for n in (1, 2))
    for n in (3, 4, 5):
        rows = version(-n)
        inputs = deliveries.land(rows, "2026-01-05")
        for _ in range(2):
            ingest_in_a_process(inputs, kill_after=chance.uniform(0.3, 1.0) * whole)
        result = run(inputs, deliveries.settings)
        kept, quarantined = deliveries.rows(EVENTS), deliveries.rows(QUARANTINE)
        assert (len(kept), len(quarantined)) == (result.rows_kept, result.rows_quarantined)
        bad = [json.loads(row["row"]) for row in quarantined]
        ids = [row["transaction_id"] for row in [*kept, *bad]]
        assert sorted(ids) == rows["transaction_id"].to_pylist()
        assert bad[0]["amount"] == -n


def version(bad_amount: float) -> pa.Table:
    """The first day, with one row for quarantine."""
    return changed(GENERATOR.events(FIRST), "amount", first(bad_amount))


def test_ingests_at_the_same_time_lose_nothing(deliveries: Deliveries) -> None:
    """Different partitions at once, each with a row for quarantine: all go through, or ask to be run again."""
    spoiled = {n: changed(GENERATOR.events(day(n)), "amount", first(-1.0)) for n in range(3)}
    inputs = [deliveries.land(rows, partition_name(Days.ending(day(n + 1), 1))) for n, rows in spoiled.items()]
    retries: list[IngestInputs] = []

    def ingest(one: IngestInputs) -> None:
        try:
            run(one, deliveries.settings)
        except TransientError:
            retries.append(one)

    threads = [threading.Thread(target=ingest, args=(one,)) for one in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in retries:
        run(one, deliveries.settings)
    assert len(deliveries.rows(EVENTS)) == sum(rows.num_rows - 1 for rows in spoiled.values())
    assert len(deliveries.rows(QUARANTINE)) == len(spoiled)
