"""The generator: any day alone, the planted changes and nothing but them, a signal to learn."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from local.changes import Change, ChangeKind
from local.generator import Generator, land, main
from tests.cases import others_in_ci
from training.contract.base import Days
from training.contract.model_spec import ModelSpec
from training.domain.arrow_types import feed_schema

DAY = date(2026, 1, 5)


def on(number: int) -> date:
    return DAY + timedelta(days=number)


def payments(generator: Generator, start: int, days: int) -> pd.DataFrame:
    """Events and labels of some days, joined."""
    events = pa.concat_tables([generator.events(on(start + n)) for n in range(days)]).to_pandas()
    labels = pa.concat_tables([generator.labels(on(start + n + 7)) for n in range(days)]).to_pandas()
    joined = events.merge(labels, on="transaction_id", validate="one_to_one")
    assert len(joined) == len(events) == len(labels)
    return joined


def test_the_schema_is_the_specs(spec: ModelSpec) -> None:
    assert Generator().events(DAY).schema == feed_schema(spec.source.events)
    assert Generator().labels(DAY).schema == feed_schema(spec.source.feeds["labels"])


def test_any_day_is_reproducible_alone_and_the_seed_matters() -> None:
    warm = Generator(seed=3)
    for number in range(5):
        warm.events(on(number))
    assert warm.events(on(9)).equals(Generator(seed=3).events(on(9)))
    assert warm.labels(on(9)).equals(Generator(seed=3).labels(on(9)))
    assert not warm.events(on(9)).equals(Generator(seed=4).events(on(9)))


def test_payments_lie_in_their_day_in_order_with_ids_of_their_own() -> None:
    rows = pa.concat_tables([Generator().events(on(n)) for n in range(3)]).to_pandas()
    assert rows["event_time"].is_monotonic_increasing
    assert set(rows["event_time"].dt.date) == {on(0), on(1), on(2)}
    assert rows["transaction_id"].is_unique
    assert rows["amount"].min() >= 0


def test_labels_are_reported_seven_days_after_the_payment() -> None:
    rows = payments(Generator(), 0, 1)
    assert (rows["reported_at"] - rows["event_time"] == timedelta(days=7)).all()
    assert set(rows["is_fraud"]) == {0, 1}


@pytest.mark.parametrize("seed", others_in_ci(range(3)))
def test_about_one_percent_are_frauds(seed: int) -> None:
    assert 0.006 < payments(Generator(seed), 0, 60)["is_fraud"].mean() < 0.018


def test_size_is_a_parameter() -> None:
    big = Generator(customers=20_000, terminals=500, payments_per_day=5.0)
    assert big.events(DAY).num_rows == pytest.approx(100_000, rel=0.05)


def test_a_terminals_past_frauds_predict_its_next() -> None:
    """What the terminal features live on: frauds of the days 0 … 13, payments of the day after their labels came."""
    generator = Generator()
    past, later = payments(generator, 0, 14), payments(generator, 14, 7)
    struck = set(past.groupby("terminal_id")["is_fraud"].mean().loc[lambda share: share > 0.5].index)
    rate = later.groupby(later["terminal_id"].isin(struck))["is_fraud"].mean()
    assert rate[True] > 10 * rate[False]


def test_a_planted_change_leaves_the_days_before_it_alone() -> None:
    changes = [
        Change(kind=kind, start=on(5))
        for kind in ("new_fraud", "amount_inflation", "population_shift", "zero_amounts", "stuck_terminals")
    ]
    changed, plain = Generator(changes=changes), Generator()
    assert changed.events(on(4)).equals(plain.events(on(4)))
    assert changed.labels(on(11)).equals(plain.labels(on(11)))
    assert not changed.events(on(5)).equals(plain.events(on(5)))


def test_a_change_ends() -> None:
    changed = Generator(changes=[Change(kind="amount_inflation", start=on(1), end=on(2), strength=2)])
    means = [changed.events(on(n)).to_pandas()["amount"].sum() / plain_sum(n) for n in range(3)]
    assert means == pytest.approx([1, 2, 1], rel=1e-4)


def plain_sum(number: int) -> float:
    return float(Generator().events(on(number)).to_pandas()["amount"].sum())


def test_new_frauds_are_small_and_at_night_and_come_on_top() -> None:
    changed = payments(Generator(changes=[Change(kind="new_fraud", start=DAY)]), 8, 7)
    plain = payments(Generator(), 8, 7)
    keys = ["event_time", "customer_id", "terminal_id", "amount", "is_fraud"]
    both = changed[keys].merge(plain[keys], how="outer", indicator=True)
    assert not (both["_merge"] == "right_only").any()
    new = both[both["_merge"] == "left_only"]
    assert 0.01 * len(plain) < len(new) < 0.05 * len(plain)
    assert new["is_fraud"].all()
    assert new["amount"].between(1, 10).all()
    assert new["event_time"].dt.hour.between(1, 4).all()


def test_a_population_shift_adds_new_customers_with_other_habits() -> None:
    rows = payments(Generator(changes=[Change(kind="population_shift", start=DAY, strength=0.4)]), 0, 7)
    new = rows[rows["customer_id"] >= 1000]
    assert 300 < new["customer_id"].nunique() <= 400
    old = rows[rows["customer_id"] < 1000]
    assert new["amount"].mean() > 1.6 * old["amount"].mean()
    assert len(old) == len(payments(Generator(), 0, 7))


def test_broken_sensors_stay_silent() -> None:
    plain = Generator().events(DAY).to_pandas()
    zero = Generator(changes=[Change(kind="zero_amounts", start=DAY)]).events(DAY).to_pandas()
    stuck = Generator(changes=[Change(kind="stuck_terminals", start=DAY)]).events(DAY).to_pandas()
    assert 0.1 < (zero["amount"] == 0).mean() < 0.3
    assert (zero["terminal_id"] == plain["terminal_id"]).all()
    assert 0.1 < stuck["terminal_id"].value_counts(normalize=True).iloc[0] < 0.3
    assert (stuck["amount"] == plain["amount"]).all()


def test_moved_frauds_change_labels_and_nothing_else() -> None:
    changed = payments(Generator(changes=[Change(kind="moved_frauds", start=on(1), strength=0.5)]), 0, 21)
    plain = payments(Generator(), 0, 21)
    assert changed.drop(columns="is_fraud").equals(plain.drop(columns="is_fraud"))
    assert changed["is_fraud"].sum() == plain["is_fraud"].sum()
    assert 0.4 < (changed["is_fraud"] * plain["is_fraud"]).sum() / plain["is_fraud"].sum() < 0.65


def test_a_gradual_change_grows_by_equal_parts() -> None:
    change = Change(kind="amount_inflation", start=on(1), strength=1.4, over_days=4)
    means = [Generator(changes=[change]).events(on(n)).to_pandas()["amount"].sum() / plain_sum(n) for n in range(7)]
    assert means == pytest.approx([1, 1.1, 1.2, 1.3, 1.4, 1.4, 1.4], rel=1e-3)


@pytest.mark.parametrize(
    "kind", others_in_ci(["population_shift", "new_fraud", "zero_amounts", "moved_frauds"], first=2)
)
def test_a_gradual_change_is_smaller_on_its_way_and_whole_at_its_end(kind: ChangeKind) -> None:
    """New frauds last a week, so the whole is reached a week after the last part."""

    def changed(over_days: int, day: int) -> int:
        generator = Generator(changes=[Change(kind=kind, start=on(1), over_days=over_days)])
        rows, plain = payments(generator, day, 1), payments(Generator(), day, 1)
        if len(rows) > len(plain):
            return len(rows) - len(plain)
        return int((rows.fillna(0) != plain.fillna(0)).any(axis=1).sum())

    assert 0 < changed(20, 10) < 0.8 * changed(1, 10)
    assert changed(20, 30) == changed(1, 30)


def test_changes_are_read_from_text() -> None:
    assert Change.parse("new_fraud@2026-02-02") == Change(kind="new_fraud", start=date(2026, 2, 2))
    full = Change(kind="zero_amounts", start=date(2026, 2, 2), end=date(2026, 2, 9), strength=0.3)
    assert Change.parse("zero_amounts@2026-02-02..2026-02-09=0.3") == full
    gradual = Change(kind="zero_amounts", start=date(2026, 2, 2), strength=0.3, over_days=56)
    assert Change.parse("zero_amounts@2026-02-02=0.3/56") == gradual


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not kind@start"),
        ("rain@2026-02-02", "with a kind of new_fraud"),
        ("new_fraud", "is not kind@start"),
        ("new_fraud@2026-02-30", "start"),
        ("new_fraud@2026-02-02=0", "strength"),
        ("new_fraud@2026-02-02/0", "over_days"),
    ],
)
def test_other_text_is_no_change(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Change.parse(text)


def test_landed_files_hold_the_days_that_they_promise(tmp_path: Path) -> None:
    path = land(Generator(), tmp_path, "card_payments", "events", Days(start=on(0), end=on(3)))
    assert path == tmp_path / "card_payments/events/2026-01-05_2026-01-07.parquet"
    rows = pq.read_table(path)
    assert rows.equals(pa.concat_tables([Generator().events(on(n)) for n in range(3)]))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_command_line_lands_both_feeds(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    size = ["--customers", "50", "--days", "9", "--days-per-file", "4"]
    main(["--landing", str(tmp_path), "--start", "2026-01-05", *size, "--change", "amount_inflation@2026-01-06=3"])
    landed = sorted(str(path.relative_to(tmp_path / "card_payments")) for path in tmp_path.rglob("*.parquet"))
    assert landed == [
        "events/2026-01-05_2026-01-08.parquet",
        "events/2026-01-09_2026-01-12.parquet",
        "events/2026-01-13.parquet",
        "labels/2026-01-12_2026-01-13.parquet",
    ]
    labels = pq.read_table(tmp_path / "card_payments/labels/2026-01-12_2026-01-13.parquet").to_pandas()
    assert labels["reported_at"].min() >= datetime(2026, 1, 12, tzinfo=UTC)
    assert len(capsys.readouterr().out.split()) == 4
    with pytest.raises(SystemExit):
        main(["--landing", str(tmp_path), "--start", "2026-01-05", "--change", "rain@2026-01-06"])


def test_ids_stay_whole_in_a_float() -> None:
    """JSON readers may hold them so."""
    assert Generator(customers=50).events(date(2100, 1, 1))["transaction_id"].to_numpy().max() < np.float64(2**53)
