"""Replay of quarantined rows: what enters, what stays, once, whatever is killed; features as if it had come in time."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.steps.ingest_helpers import FIRST, GENERATOR, MODEL, SOURCE, Deliveries, changed, day, first
from training.adapters.lake import EVENTS, QUARANTINE, Lake
from training.adapters.ledger import Ledger
from training.contract.base import Days
from training.contract.errors import DataContractError, ExitCode, InputError
from training.contract.messages import FeaturesInputs, ReplayQuarantineInputs, ReplayQuarantineResult
from training.quarantine import listed, main
from training.settings import Settings
from training.steps import features
from training.steps.ingest.writing import Partition
from training.steps.replay_quarantine import REPLAY, run

PARTITION = "2026-01-05"
ROWS = GENERATOR.events(FIRST)
COUNT = ROWS.num_rows
#: Two payments above the maximum, one below the minimum, one of an impossible amount, one of no customer.
SPOILED = changed(
    changed(ROWS, "amount", first(150_000.0, 160_000.0, -1.0, float("inf"))),
    "customer_id",
    lambda values: [*values[:4], None, *values[5:]],
)
MAXIMUM = "amount is outside 0 … 100000"


@pytest.fixture
def deliveries(settings: Settings) -> Deliveries:
    deliveries = Deliveries(settings)
    deliveries.deliver(SPOILED, PARTITION)
    return deliveries


def replay(deliveries: Deliveries, **given: Any) -> ReplayQuarantineResult:
    wanted = {"source": SOURCE, "feed": EVENTS, "reason": "The rule was wrong", "requested_by": "ada", **given}
    return run(ReplayQuarantineInputs(**wanted), deliveries.settings)


def raise_maximum(deliveries: Deliveries) -> None:
    deliveries.respec(lambda feeds: feeds["events"]["columns"]["amount"].update(maximum=200_000))


def correct(deliveries: Deliveries, rows: pa.Table, name: str = "mended.parquet") -> str:
    folder = Path(deliveries.settings.landing, SOURCE, "_corrections")
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, folder / name)
    return name


def ids(deliveries: Deliveries) -> list[int]:
    return sorted(row["transaction_id"] for row in deliveries.rows(EVENTS))


def test_what_is_in_quarantine_is_listed_with_counts_and_an_example(deliveries: Deliveries) -> None:
    lines = listed(deliveries.lake)
    assert f"events {PARTITION}: 3 rows: {MAXIMUM}" in lines
    assert '"amount": 150000.0' in lines[lines.index(f"events {PARTITION}: 3 rows: {MAXIMUM}") + 1]
    assert listed(deliveries.lake, "labels") == ["No rows are in quarantine."]


def test_a_feed_that_does_not_exist_is_not_one_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([SOURCE, "no_such_feed"]) == ExitCode.BAD_INPUT
    assert "has no feed 'no_such_feed'\n  → The feeds: events, labels." in capsys.readouterr().err


def test_after_a_rule_has_changed_the_rows_that_hold_enter_once(deliveries: Deliveries) -> None:
    raise_maximum(deliveries)
    done = replay(deliveries, run="manual-1")
    (entry,) = Ledger(deliveries.settings.ledger).entries(MODEL, REPLAY)
    assert (entry.body["reason"], entry.body["requested_by"]) == ("The rule was wrong", "ada")
    (found,) = done.partitions
    bound = "amount is outside 0 … 200000"
    assert (found.entered, found.stays) == (2, 3)
    assert found.reasons == {bound: 1, "amount is infinite": 1, "customer_id is missing": 1}
    assert ids(deliveries) == sorted([*ROWS["transaction_id"].to_pylist()[:2], *ROWS["transaction_id"].to_pylist()[5:]])
    assert '"amount": "inf"' in next(r["row"] for r in deliveries.rows(QUARANTINE) if "infinite" in r["reason"])
    assert done.affected == Days(start=day(1), end=day(2))
    # The same delivery again neither doubles nor undoes anything, and a second replay has nothing to add.
    again = deliveries.deliver(SPOILED, PARTITION)
    assert (again.rows_kept, again.rows_quarantined) == (COUNT - 3, 3)
    assert ids(deliveries) == sorted(set(ids(deliveries)))
    second = replay(deliveries, run="manual-2")
    assert (second.partitions[0].entered, second.affected) == (0, None)


def test_corrected_rows_take_the_place_of_those_in_quarantine(deliveries: Deliveries) -> None:
    done = replay(deliveries, partition=PARTITION, corrections=correct(deliveries, ROWS.slice(0, 5)))
    assert (done.partitions[0].entered, done.partitions[0].stays) == (5, 0)
    kept = deliveries.lake.scan(EVENTS).to_table().drop_columns("partition").sort_by("transaction_id")
    assert kept.equals(ROWS.sort_by("transaction_id"))
    assert deliveries.rows(QUARANTINE) == []
    # The spoiled delivery again does not undo the correction; a whole other one replaces everything.
    assert deliveries.deliver(SPOILED, PARTITION).outcome == "unchanged"
    assert deliveries.deliver(ROWS.slice(0, COUNT - 1), PARTITION).rows_kept == COUNT - 1
    with pytest.raises(InputError, match="No rows of events 2026-01-05 are in quarantine"):
        replay(deliveries, partition=PARTITION)


@pytest.mark.ci
def test_a_correction_that_is_wrong_itself_stays_with_its_own_values(deliveries: Deliveries) -> None:
    wrong = changed(ROWS.slice(0, 2), "amount", first(-7.0))
    done = replay(deliveries, partition=PARTITION, corrections=correct(deliveries, wrong))
    assert (done.partitions[0].entered, done.partitions[0].stays) == (1, 4)
    assert any('"amount": -7.0' in row["row"] for row in deliveries.rows(QUARANTINE))


def test_corrections_are_of_quarantined_rows_alone(deliveries: Deliveries) -> None:
    stranger = changed(ROWS.slice(0, 1), "transaction_id", lambda _: [99_999_999])
    with pytest.raises(DataContractError, match="transaction_id 99999999 is not in quarantine"):
        replay(deliveries, partition=PARTITION, corrections=correct(deliveries, stranger))
    other = changed(ROWS.slice(9, 1), "amount", lambda _: [1.0])
    with pytest.raises(DataContractError, match="The lake has another row with transaction_id"):
        replay(deliveries, partition=PARTITION, corrections=correct(deliveries, other))
    same = replay(deliveries, partition=PARTITION, corrections=correct(deliveries, ROWS.slice(9, 1)))
    assert same.partitions[0].entered == 0
    with pytest.raises(InputError, match="none is named"):
        replay(deliveries, corrections="mended.parquet")


@pytest.mark.ci
@pytest.mark.parametrize("table", [QUARANTINE, EVENTS])
def test_killed_at_a_commit_it_finishes_and_loses_nothing(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    raise_maximum(deliveries)
    replace = Lake.replace_partition

    def killed(lake: Lake, name: str, *args: Any) -> int:
        if name == table:
            raise KeyboardInterrupt
        return replace(lake, name, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "replace_partition", killed)
        with pytest.raises(KeyboardInterrupt):
            replay(deliveries)
    done = replay(deliveries)
    assert (done.partitions[0].entered, done.partitions[0].stays) == (2, 3)
    assert len(ids(deliveries)) == len(set(ids(deliveries))) == COUNT - 3
    assert len(deliveries.rows(QUARANTINE)) == 3
    assert not list(Path(deliveries.settings.scratch, SOURCE, "replays").rglob("*.parquet"))


@pytest.mark.ci
def test_killed_in_a_later_partition_it_still_names_the_days_of_the_earlier_one(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries.deliver(changed(GENERATOR.events(day(3)), "amount", first(150_000.0)), str(day(3)))
    raise_maximum(deliveries)
    write = Partition.write

    def killed(partition: Partition, *args: Any) -> None:
        if partition._name == str(day(3)):
            raise KeyboardInterrupt
        write(partition, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Partition, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            replay(deliveries)
    done = replay(deliveries)
    assert [(each.partition, each.entered) for each in done.partitions] == [(PARTITION, 2), (str(day(3)), 1)]
    assert done.affected is not None
    assert done.affected.start == day(1)
    assert [each.entered for each in replay(deliveries).partitions] == [0]


@pytest.mark.ci
def test_corrections_that_were_refused_do_not_stop_a_replay_of_all(deliveries: Deliveries) -> None:
    stranger = changed(ROWS.slice(0, 1), "transaction_id", lambda _: [99_999_999])
    with pytest.raises(DataContractError, match="is not in quarantine"):
        replay(deliveries, partition=PARTITION, corrections=correct(deliveries, stranger))
    deliveries.deliver(ROWS, PARTITION)
    assert replay(deliveries).partitions == []


@pytest.mark.ci
def test_labels_enter_before_there_are_events_and_change_no_features_then(deliveries: Deliveries) -> None:
    deliveries = Deliveries(Settings(home=Path(deliveries.settings.home, "without-events")))
    labels, partition = GENERATOR.labels(day(8)), str(day(8))
    deliveries.deliver(changed(labels, "is_fraud", first(None)), partition, "labels")
    mended = correct(deliveries, labels.slice(0, 1))
    done = replay(deliveries, feed="labels", partition=partition, corrections=mended)
    assert (done.partitions[0].entered, done.partitions[0].stays, done.affected) == (1, 0, None)
    assert len(deliveries.rows("labels")) == labels.num_rows


@pytest.mark.ci
def test_a_delivery_that_comes_in_between_is_not_undone(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_maximum(deliveries)
    with monkeypatch.context() as patch:
        patch.setattr(Partition, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            replay(deliveries)
    newer = changed(ROWS.slice(0, COUNT - 1), "amount", first(-9.0))
    deliveries.deliver(newer, PARTITION)
    done = replay(deliveries)
    assert (done.partitions[0].entered, done.partitions[0].stays) == (0, 1)
    assert len(ids(deliveries)) == COUNT - 2


@pytest.mark.ci
def test_each_model_of_the_source_has_the_reason_in_its_ledger(deliveries: Deliveries) -> None:
    raise_maximum(deliveries)
    replay(deliveries, run="manual-1")
    replay(deliveries, run="manual-1")
    (entry,) = Ledger(deliveries.settings.ledger).entries(MODEL, REPLAY)
    assert (entry.body["reason"], entry.body["requested_by"]) == ("The rule was wrong", "ada")
    assert entry.body["partitions"][0]["entered"] == 2


@pytest.mark.ci
def test_features_of_old_days_are_those_of_a_delivery_that_was_right_at_once(
    deliveries: Deliveries, tmp_path: Path
) -> None:
    """Of every day that the late events reach, and of no other; rows of earlier versions stay as they were."""
    right = Deliveries(Settings(home=tmp_path / "right"))
    right.deliver(ROWS, PARTITION)
    for each in (deliveries, right):
        for number in (1, 2, 3):
            each.events(number)
        days = {"start": day(1), "end": day(5)}
        versions = each.lake.versions(EVENTS, "labels")
        features.run(FeaturesInputs(source=SOURCE, days=days, table_versions=versions), each.settings)
    before = deliveries.lake.version("customer_features")
    done = replay(deliveries, partition=PARTITION, corrections=correct(deliveries, ROWS.slice(0, 5)))
    again = FeaturesInputs(source=SOURCE, days=done.affected, table_versions=done.table_versions)
    features.run(again, deliveries.settings)

    def rows(lake: Lake, version: int | None = None) -> pa.Table:
        table = lake.scan("customer_features", version).to_table()
        return table.sort_by([(name, "ascending") for name in ("day", "customer_id")])

    wanted = rows(right.lake)
    assert rows(deliveries.lake).select(wanted.column_names).equals(wanted)
    assert not rows(deliveries.lake, before).equals(wanted)
