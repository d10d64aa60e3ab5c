"""The dataset step: what is in the splits, that nothing of the future is, and that it may be killed and run again."""

import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from testing.spec_files import Raw, spec_files
from tests.cases import others_in_ci
from tests.feature_repo.payments_and_features import (
    MODEL,
    SOURCE,
    START,
    compute,
    day,
    expected,
    midnight,
    payments,
    put,
)
from training.adapters.datasets import Dataset
from training.adapters.features import Features
from training.adapters.lake import Lake
from training.contract.errors import DataContractError, InputError
from training.contract.messages import DatasetInputs, DatasetResult, Snapshot
from training.contract.model_spec import MODELS_DIR, load_model_spec
from training.domain.entity_age import LOOK_BACK
from training.settings import Settings
from training.steps import dataset

DAYS, AS_OF = 40, 38
HORIZON = day(AS_OF)
#: The columns of ages.
AGES = ["_age_customer_id", "_age_terminal_id"]
WINDOWS = dict.fromkeys(("window_days", "holdout_days"), 7)


def models(folder: Path, **training: float) -> Path:
    """card_fraud's spec with a small training section."""
    spec = yaml.safe_load((MODELS_DIR / "card_fraud.yaml").read_text())
    spec["training"] |= {
        **WINDOWS,
        "minimum_rows": 20,
        "minimum_class_rows": 3,
        "minimum_labelled_share": 0,
        **training,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card_fraud.yaml").write_text(yaml.safe_dump(spec))
    return folder


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, pd.DataFrame]:
    """A lake with features, and the events and labels that are in it: labels after 5, 7 or 10 days, or never."""
    home = tmp_path_factory.mktemp("dataset")
    settings = Settings(home=home)
    events, labels = payments(DAYS, per_day=12, entities=9, delays=(5, 7, 7, 10, -1), fraud=0.15)
    put(settings, events, labels)
    compute(settings, 0, DAYS + 1)
    return home, events, labels


@pytest.fixture
def settings(filled: tuple[Path, pd.DataFrame, pd.DataFrame], tmp_path: Path) -> Settings:
    shutil.copytree(filled[0] / "lake", tmp_path / "home" / "lake")
    return Settings(home=tmp_path / "home", models_dir=models(tmp_path / "models"))


def run(settings: Settings, as_of: date | None = HORIZON, **inputs: Any) -> DatasetResult:
    return dataset.run(DatasetInputs(model=MODEL, as_of=as_of, **inputs), settings)


def run_on(settings: Settings, versions: dict[str, int]) -> DatasetResult:
    """The dataset of a snapshot with these tables."""
    return run(settings, as_of=None, snapshot=Snapshot(as_of=HORIZON, table_versions=versions))


def test_the_splits_hold_the_labelled_events_of_their_days(
    settings: Settings, filled: tuple[Path, pd.DataFrame, pd.DataFrame]
) -> None:
    _, events, labels = filled
    result = run(settings)
    assert (result.train.days.start, result.train.days.end) == (day(AS_OF - 28), day(AS_OF - 21))
    assert (result.holdout.days.start, result.holdout.days.end) == (day(AS_OF - 14), day(AS_OF - 7))
    known = events.merge(labels[labels["reported_at"] < midnight(AS_OF)], on="transaction_id")
    for split in (result.train, result.holdout):
        within = known["event_time"].dt.date.between(split.days.start, split.days.end - timedelta(days=1))
        want = known[within].sort_values("event_time")
        found = pd.read_parquet(split.uri)
        assert found["transaction_id"].tolist() == want["transaction_id"].tolist()
        assert found["is_fraud"].tolist() == want["is_fraud"].tolist()
        assert (split.rows, split.counts["positive"]) == (len(want), want["is_fraud"].sum())
        some = slice(None, None, 3)
        features = expected(events, labels, want[some])
        np.testing.assert_allclose(found[list(features)][some], features, rtol=1e-5)
        assert set(found[result.feature_names].dtypes) == {np.dtype(np.float32)}
    # Some labels of the holdout's days came after as_of, or never.
    assert result.holdout.rows < 7 * 12


def test_the_columns_and_the_manifest(settings: Settings) -> None:
    result = run(settings)
    names = Features(settings, load_model_spec(MODEL, settings.models_dir, settings.feature_repo)).names()
    assert result.feature_names == names
    keys = ["transaction_id", "event_time", "customer_id", "terminal_id", "is_fraud"]
    assert pq.read_schema(result.train.uri).names == [*keys, *names, *AGES]
    assert pq.read_schema(result.holdout.uri).names == [*keys, *names, "_excluded", *AGES]
    folder = Path(result.uri)
    assert folder == Path(settings.work) / MODEL / "datasets" / result.dataset_id
    assert DatasetResult.model_validate_json((folder / "dataset.json").read_text()) == result
    assert sorted(p.name for p in folder.iterdir()) == [
        "dataset.json", "features.json", "holdout.parquet", "reference.parquet", "requests.parquet", "train.parquet",
    ]  # fmt: skip
    tables = ("events", "labels", "customer_features", "terminal_features")
    assert result.table_versions == Lake(settings.lake, SOURCE, MODEL).versions(*tables)


def test_a_dataset_says_how_long_its_entities_were_known(
    settings: Settings, filled: tuple[Path, pd.DataFrame, pd.DataFrame]
) -> None:
    _, events, _ = filled
    result = run(settings)
    days, first = events["event_time"].dt.floor("D"), events["event_time"].min().floor("D")
    for split in (result.train, result.holdout):
        rows = pd.read_parquet(split.uri)
        for name in ("customer_id", "terminal_id"):
            for _, row in rows.iloc[::7].iterrows():
                day = row["event_time"].floor("D")
                own = days[(events[name] == row[name]) & days.between(day - LOOK_BACK, day)]
                expected = (day - own.min()).days if day - LOOK_BACK >= first else np.nan
                np.testing.assert_equal(row[f"_age_{name}"], expected)
    assert pq.read_schema(Path(result.uri, "reference.parquet")).names[-2:] == AGES


@pytest.mark.ci
def test_the_entity_of_evaluation_may_be_the_id(settings: Settings, tmp_path: Path) -> None:
    text = (settings.models_dir / f"{MODEL}.yaml").read_text()
    assert "entity: customer_id" in text
    (tmp_path / f"{MODEL}.yaml").write_text(text.replace("entity: customer_id", "entity: transaction_id"))
    result = run(settings.model_copy(update={"models_dir": tmp_path}))
    names = pq.read_schema(result.holdout.uri).names
    assert names[:5] == ["transaction_id", "event_time", "customer_id", "terminal_id", "is_fraud"]
    assert len(names) == len(set(names))
    assert [name for name in names if name.startswith("_age")] == AGES
    # A payment is not known before its own day.
    assert not pd.read_parquet(result.holdout.uri)["_excluded"].any()


@pytest.mark.long
def test_large_entities_of_which_some_are_null_stay_what_they_are(settings: Settings, tmp_path: Path) -> None:
    def nullable(model: Raw, source: Raw) -> None:
        source["feeds"]["events"]["columns"]["customer_id"] = {"type": "int64", "nullable": True}

    settings = settings.model_copy(update={"feature_repo": spec_files(tmp_path / "nullable", nullable)["feature_repo"]})
    events, labels = payments(DAYS, per_day=12, entities=9, delays=(5, 7, 7, 10, -1), fraud=0.15)
    holdouts = []
    for name, more in (("small", 0), ("large", 2**60)):  # float64 takes all of the large ones for one customer
        customers = (events["customer_id"].astype("Int64") + more).mask(events.index % 5 == 0)
        other = settings.model_copy(update={"home": tmp_path / name})
        put(other, events.assign(customer_id=customers), labels)
        compute(other, 0, DAYS + 1)
        result = run(other)
        holdout = Dataset(result.uri, load_model_spec(MODEL, settings.models_dir, settings.feature_repo)).holdout()
        assert set(holdout.entities.dropna()) <= {more + n for n in range(9)}
        kept = holdout.table.column_names.index("terminal_id")
        holdouts.append((holdout.entities - more, holdout.table.select(range(kept, holdout.table.num_columns))))
    (small, features), (large, others) = holdouts
    pd.testing.assert_series_equal(small, large)
    assert small.isna().any()
    assert small.nunique() > 5
    different = [name for name in features.column_names if not features[name].equals(others[name])]
    assert different == []
    assert features["_excluded"].to_numpy(zero_copy_only=False).any()
    assert max(features["customer_count_7d"].to_pylist()) > 1


def test_the_holdouts_events_and_feature_rows_give_its_features(settings: Settings) -> None:
    result = run(settings)
    spec = load_model_spec(MODEL, settings.models_dir, settings.feature_repo)
    found, features = Dataset(result.uri, spec), Features(settings, spec)
    made_of, holdout = found.requests().to_pylist(), found.holdout()
    assert [row["event"]["transaction_id"] for row in made_of] == holdout.table["transaction_id"].to_pylist()
    assert set(made_of[0]["event"]) == set(spec.request_columns)
    assert found.definitions() == features.definitions
    replayed = features.plan().replay([row["event"] for row in made_of], [row["batch"] for row in made_of])
    np.testing.assert_array_equal(replayed.values, holdout.features(found.columns()))


def test_customers_known_before_the_day_are_excluded(
    settings: Settings, filled: tuple[Path, pd.DataFrame, pd.DataFrame]
) -> None:
    _, events, labels = filled
    result = run(settings)
    holdout = pd.read_parquet(result.holdout.uri)
    frauds = events.merge(labels[labels["is_fraud"] == 1], on="transaction_id")
    frauds = frauds[frauds["event_time"] >= midnight(AS_OF - 28)]
    for _, row in holdout.iterrows():
        own = frauds[
            (frauds["customer_id"] == row["customer_id"]) & (frauds["reported_at"] < row["event_time"].floor("D"))
        ]
        assert row["_excluded"] == (len(own) > 0)
    assert 0 < holdout["_excluded"].sum() < len(holdout)


def test_what_comes_after_the_horizon_changes_nothing(
    settings: Settings, filled: tuple[Path, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    """A world that ends at as_of gives the same rows as one that went on."""
    _, events, labels = filled
    ended = Settings(home=tmp_path / "ended", models_dir=settings.models_dir)
    put(ended, events[events["event_time"] < midnight(AS_OF)], labels[labels["reported_at"] < midnight(AS_OF)])
    compute(ended, 0, AS_OF + 1)
    there, here = run(ended), run(settings)
    for name in ("train", "holdout"):
        left, right = getattr(there, name).uri, getattr(here, name).uri
        pd.testing.assert_frame_equal(pd.read_parquet(left), pd.read_parquet(right))


def test_without_as_of_it_is_the_day_after_the_newest_label(
    settings: Settings, filled: tuple[Path, pd.DataFrame, pd.DataFrame]
) -> None:
    _, events, labels = filled
    put(settings, events, labels[labels["reported_at"] < midnight(AS_OF)])
    result = run(settings, as_of=None)
    assert result.as_of == HORIZON
    assert run(settings) == result


def test_the_same_again_is_the_same_dataset_untouched(settings: Settings) -> None:
    first = run(settings)
    stamp = Path(first.train.uri).stat().st_mtime_ns
    assert run(settings) == first
    assert Path(first.train.uri).stat().st_mtime_ns == stamp


def test_the_id_changes_with_all_that_determines_the_content(settings: Settings, tmp_path: Path) -> None:
    ids = [run(settings).dataset_id, run(settings, seed=1).dataset_id, run(settings, window_days=5).dataset_id]
    ids.append(run(settings, as_of=day(AS_OF - 1)).dataset_id)
    policy = Settings(home=settings.home, models_dir=models(tmp_path / "other", minimum_rows=21))
    ids.append(run(policy).dataset_id)
    repo = tmp_path / "repo"
    shutil.copytree(settings.feature_repo, repo)
    with (repo / "card_payments.py").open("a") as file:
        file.write("# changed\n")
    ids.append(run(Settings(home=settings.home, models_dir=settings.models_dir, feature_repo=repo)).dataset_id)
    compute(settings, DAYS, DAYS + 1)
    ids.append(run(settings).dataset_id)
    assert len(set(ids)) == len(ids)


@pytest.mark.ci
def test_tables_created_again_with_the_same_versions_make_another_dataset(
    settings: Settings, filled: tuple[Path, pd.DataFrame, pd.DataFrame]
) -> None:
    before = run(settings)
    _, events, labels = filled
    shutil.rmtree(settings.lake)
    put(settings, events.assign(amount=events["amount"] * 2), labels)
    compute(settings, 0, DAYS + 1)
    after = run(settings)
    assert after.table_versions == before.table_versions
    assert after.dataset_id != before.dataset_id
    amounts = [pd.read_parquet(each.train.uri)["payment_amount"].sum() for each in (before, after)]
    assert amounts[1] == pytest.approx(2 * amounts[0])


@pytest.mark.ci
def test_the_same_content_written_anew_is_equal_byte_for_byte(settings: Settings) -> None:
    first = run(settings)
    before = {p.name: p.read_bytes() for p in Path(first.uri).iterdir()}
    shutil.rmtree(first.uri)
    again = run(settings)
    assert {p.name: p.read_bytes() for p in Path(again.uri).iterdir()} == before


@pytest.mark.long
def test_killed_at_any_file_leaves_no_dataset_and_the_next_run_makes_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = pq.write_table

    def break_at(name: str) -> None:
        def broken(table: object, path: object, *args: object, **kwargs: object) -> None:
            if Path(str(path)).name == name:
                raise OSError("No space left on device")
            write(table, path, *args, **kwargs)

        monkeypatch.setattr(pq, "write_table", broken)

    for name in ("train.parquet", "holdout.parquet", "reference.parquet"):
        break_at(name)
        with pytest.raises(OSError, match="No space"):
            run(settings)
        assert list((Path(settings.work) / MODEL / "datasets").iterdir()) == []
    monkeypatch.undo()
    assert Path(run(settings).uri, "dataset.json").exists()


def test_the_reference_is_a_seeded_sample_of_the_training_features(settings: Settings, tmp_path: Path) -> None:
    spec = yaml.safe_load((settings.models_dir / "card_fraud.yaml").read_text())
    spec["monitoring"] = {"maximum_rows": 100}
    spec["training"]["window_days"] = 15
    (settings.models_dir / "card_fraud.yaml").write_text(yaml.safe_dump(spec))
    results = [run(settings, seed=1), run(settings, seed=2)]
    samples = [pd.read_parquet(Path(r.uri) / "reference.parquet") for r in results]
    train = pd.read_parquet(results[0].train.uri)[results[0].feature_names]
    for sample in samples:
        assert len(sample) == 100
        assert len(sample.merge(train.drop_duplicates())) == 100
    assert not samples[0].equals(samples[1])


def test_a_corrected_label_counts_as_known_at_the_horizon(
    settings: Settings, filled: tuple[Path, pd.DataFrame, pd.DataFrame]
) -> None:
    _, events, labels = filled
    holdout = pd.read_parquet(run(settings).holdout.uri)
    row = holdout[holdout["is_fraud"] == 0].iloc[0]["transaction_id"]
    for at, label in ((AS_OF - 1, 1), (AS_OF, 0)):
        correction = labels[labels["transaction_id"] == row].assign(is_fraud=1, reported_at=midnight(at))
        put(settings, events.iloc[:0], correction, partition="corrected")
        found = pd.read_parquet(run(settings).holdout.uri).set_index("transaction_id")
        assert found["is_fraud"].loc[row] == label


def test_too_little_history_says_when_there_is_enough(settings: Settings) -> None:
    with pytest.raises(DataContractError, match="begin on 2026-01-01") as caught:
        run(settings, window_days=30)
    enough = START + timedelta(days=7 + 7 + 7 + 30)
    assert str(enough) in caught.value.hint
    assert run(settings, as_of=day(28)).train.days.start == START


# --- several windows, and after a change ---


@pytest.mark.ci
def test_every_window_ends_with_the_usual_one_and_the_rows_of_all_are_there_once(
    settings: Settings, tmp_path: Path
) -> None:
    alone = run(settings)
    several = ["3d", "10d", "300d", "expanding", "half_life_2d"]
    result = run(Settings(home=settings.home, models_dir=models(tmp_path / "several", windows=several)))
    days = {window.name: window.days for window in result.windows}
    # History begins 38 days before the horizon: the 300 days are not there.
    assert {name: len(of) for name, of in days.items()} == {
        "": 7, "3d": 3, "10d": 10, "expanding": AS_OF - 21, "half_life_2d": 12
    }  # fmt: skip
    assert {of.end for of in days.values()} == {result.train.days.end}
    assert result.train.days.start == START
    (first, *others), rows = result.windows, pd.read_parquet(result.train.uri)
    assert rows["transaction_id"].is_unique
    # The usual window has the rows that it has alone, and drift is measured against them.
    assert (first.rows, first.counts, first.days) == (alone.train.rows, alone.train.counts, alone.train.days)
    kept = rows[rows["event_time"] >= midnight(AS_OF - 28)].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, pd.read_parquet(alone.train.uri))
    pd.testing.assert_frame_equal(*(pd.read_parquet(Path(r.uri) / "reference.parquet") for r in (alone, result)))
    spec = load_model_spec(MODEL, settings.models_dir, settings.feature_repo)
    found = Dataset(result.uri, spec)
    assert {each.name: len(found.train_on(each.name).table) for each in result.windows} == {
        each.name: each.rows for each in result.windows
    }
    by_age = next(each for each in others if each.name == "half_life_2d")
    assert 0 < by_age.rows < len(found.train().some(np.flatnonzero(found.train().days >= by_age.days.start)).table)
    with pytest.raises(InputError, match="no window '9d'"):
        found.train_on("9d")


def test_a_window_with_too_few_rows_is_left_out(settings: Settings, tmp_path: Path) -> None:
    result = run(Settings(home=settings.home, models_dir=models(tmp_path / "few", windows=["1d"])))
    assert [window.name for window in result.windows] == [""]


AFTER = {"holdout_days": 2, "gap_days": 1, "train_days": 3}


def test_after_a_change_the_holdout_is_short_and_near_and_the_days_since_are_a_window(tmp_path: Path) -> None:
    quick = Settings(home=tmp_path, models_dir=models(tmp_path / "quick", after_change=AFTER))
    put(quick, *payments(DAYS, per_day=30, entities=150, delays=(5, 7), fraud=0.15))
    compute(quick, 0, DAYS + 1)
    changed = day(AS_OF - 15)
    result = run(quick, change=changed)
    assert result.change == changed
    assert (result.holdout.days.start, result.holdout.days.end) == (day(AS_OF - 9), day(AS_OF - 7))
    days = {window.name: (window.days.start, window.days.end) for window in result.windows}
    assert days == {"": (day(AS_OF - 17), day(AS_OF - 10)), "since_change": (changed, day(AS_OF - 10))}
    # Entities that the model has learned to be positive get it no credit, though nobody knew them on those days.
    train, holdout = pd.read_parquet(result.train.uri), pd.read_parquet(result.holdout.uri)
    learned = holdout["customer_id"].isin(train.loc[train["is_fraud"] == 1, "customer_id"])
    assert learned.any()
    assert holdout.loc[learned, "_excluded"].all()
    assert run(quick).change is None
    assert len({run(quick).dataset_id, result.dataset_id, run(quick, change=day(AS_OF - 14)).dataset_id}) == 3


@pytest.mark.parametrize(
    ("days_ago", "why"),
    others_in_ci(
        [
            (12, "too few days since have labels"),
            (28, "the usual window has no day before it"),
            # There are nine customers, and nearly all of them have a positive label by then.
            (15, "too few rows of the short holdout count"),
        ]
    ),
)
def test_a_change_that_a_shorter_holdout_does_not_help_with_leaves_everything_as_it_is(
    settings: Settings, tmp_path: Path, days_ago: int, why: str
) -> None:
    quick = Settings(home=settings.home, models_dir=models(tmp_path / "quick", after_change=AFTER))
    assert run(quick, change=day(AS_OF - days_ago)) == run(quick), why


@pytest.mark.ci
def test_without_the_section_a_change_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    usual = Settings(home=settings.home, models_dir=models(tmp_path / "usual", after_change=None))
    assert run(usual, change=day(AS_OF - 15)) == run(usual)


def test_too_few_rows_or_positives_are_counted_in_the_error(settings: Settings, tmp_path: Path) -> None:
    for name, needed in (("minimum_rows", 5000), ("minimum_class_rows", 400)):
        strict = Settings(home=settings.home, models_dir=models(tmp_path / name, **{name: needed}))
        with pytest.raises(DataContractError, match=str(needed)) as caught:
            run(strict)
        assert "training window 2026-01-11 … 2026-01-17" in caught.value.message
        assert "minimum_class_rows" in caught.value.hint


@pytest.mark.ci
def test_a_holdout_of_known_entities_alone_says_which_setting_leaves_them_out(tmp_path: Path) -> None:
    """Two customers, both with a positive label before the holdout: nothing of it counts."""
    settings = Settings(home=tmp_path, models_dir=models(tmp_path / "models"))
    put(settings, *payments(DAYS, per_day=12, entities=2, delays=(5,), fraud=0.5))
    compute(settings, 0, DAYS + 1)
    with pytest.raises(
        DataContractError, match="customer_id was already known; 0 remain: 0 negative and 0 positive"
    ) as caught:
        run(settings)
    assert "exclude_known_entities: false" in caught.value.hint


def test_days_without_feature_rows_are_not_trained_on(settings: Settings) -> None:
    lake = Lake(settings.lake, SOURCE, MODEL)
    gone = lake.scan("terminal_features").head(0)
    lake.replace("terminal_features", gone, f"day = '{day(AS_OF - 10)}'", ["day"])
    with pytest.raises(DataContractError, match=f"1 days, {day(AS_OF - 10)} first"):
        run(settings)


@pytest.mark.ci
def test_days_after_a_pause_longer_than_all_windows_have_no_feature_rows_by_nature(tmp_path: Path) -> None:
    """A season: all events before day 0 are too old, so no entity has rows on day 0, nor terminals until day 7."""
    settings = Settings(home=tmp_path, models_dir=models(tmp_path / "models"))
    season, reports = payments(30, per_day=12, entities=9)
    pause = timedelta(days=120)
    before = season.assign(transaction_id=season["transaction_id"] + 10_000, event_time=season["event_time"] - pause)
    known = reports.assign(
        transaction_id=reports["transaction_id"] + 10_000, reported_at=reports["reported_at"] - pause
    )
    put(settings, pd.concat([before, season]), pd.concat([known, reports]))
    compute(settings, -120, 31)
    as_of = day(25)  # trains on days -3 … 3
    assert run(settings, as_of).train.rows == (season["event_time"].dt.date < day(4)).sum()
    lake = Lake(settings.lake, SOURCE, MODEL)
    gone = lake.scan("customer_features").head(0)
    lake.replace("customer_features", gone, f"day = '{day(1)}'", ["day"])
    with pytest.raises(DataContractError, match=f"1 days, {day(1)} first"):
        run(settings, as_of)


@pytest.mark.ci
def test_days_whose_labels_did_not_arrive_are_named_with_their_shares(settings: Settings, tmp_path: Path) -> None:
    """A lost day of the holdout and half a day of the training window; what lies in the gap does not matter."""
    events, labels = payments(DAYS, per_day=12, entities=9, fraud=0.15)
    days = dict(zip(events["transaction_id"], events["event_time"].dt.date, strict=True))
    of = labels["transaction_id"].map(days)
    lost, half, gap = day(AS_OF - 10), day(AS_OF - 25), day(AS_OF - 18)
    arrived = ~of.isin([lost, gap]) & ~((of == half) & (labels["transaction_id"] % 2 == 0))
    strict = Settings(home=settings.home, models_dir=models(tmp_path / "strict", minimum_labelled_share=0.9))
    put(strict, events, labels[arrived])
    share = arrived[of == half].mean()
    with pytest.raises(DataContractError, match="Of the events of 2 days, fewer than 90%") as caught:
        run(strict)
    assert f": {half} ({share:.1%}), {lost} (0.0%)" in caught.value.message
    assert "Land the label partitions" in caught.value.hint
    put(strict, events, labels)
    assert run(strict).holdout.rows == (events["event_time"].dt.date.between(day(AS_OF - 14), day(AS_OF - 8))).sum()


@pytest.mark.ci
def test_an_old_dataset_is_made_again_from_the_versions_that_its_result_names(settings: Settings) -> None:
    first = run(settings)
    before = {p.name: p.read_bytes() for p in Path(first.uri).iterdir()}
    shutil.rmtree(first.uri)
    put(settings, *payments(DAYS, per_day=12, entities=9, seed=1))
    compute(settings, 0, DAYS + 1)
    assert run(settings).dataset_id != first.dataset_id
    again = run_on(settings, {**first.table_versions, "predictions": 7})
    assert again == first
    assert {p.name: p.read_bytes() for p in Path(again.uri).iterdir()} == before


def test_versions_that_do_not_suffice_are_refused(settings: Settings) -> None:
    versions = Lake(settings.lake, SOURCE, MODEL).versions("events", "labels")
    with pytest.raises(DataContractError, match=r"customer_features.*terminal_features"):
        run_on(settings, versions)
    with pytest.raises(InputError, match="at version 99"):
        run_on(settings, {**versions, "events": 99, "customer_features": 0, "terminal_features": 0})


@pytest.mark.parametrize(
    "name", others_in_ci(["train.parquet", "dataset.json", "holdout.parquet", "reference.parquet"])
)
def test_a_dataset_that_lost_a_file_is_made_again(settings: Settings, name: str) -> None:
    first = run(settings)
    before = {p.name: p.read_bytes() for p in Path(first.uri).iterdir()}
    Path(first.uri, name).unlink()
    assert run(settings) == first
    assert {p.name: p.read_bytes() for p in Path(first.uri).iterdir()} == before


def test_an_empty_lake_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match="events"):
        run(Settings(home=tmp_path))


@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "column", "limits"),
    [
        ("regression", {"type": "float64"}, {"rmse": 9.0}),
        ("multiclass", {"type": "string"}, {"log_loss": 1.0}),
    ],
)
def test_labels_of_other_tasks_stand_in_the_dataset_as_they_are(
    tmp_path: Path, task: str, column: dict[str, str], limits: dict[str, float]
) -> None:
    def change(model: Raw, source: Raw) -> None:
        least = {"minimum_rows": 20, "minimum_class_rows": 3, "minimum_labelled_share": 0}
        model["training"] |= {**WINDOWS, **least}
        model |= {"task": {"kind": task}, "evaluation": {"limits": limits}}
        source["feeds"]["labels"]["columns"]["is_fraud"] = column

    settings = Settings(home=tmp_path / "home", **spec_files(tmp_path, change))
    events, labels = payments(DAYS)
    put(settings, events, labels)
    compute(Settings(home=tmp_path / "home"), 0, DAYS + 1)
    random, lake = np.random.default_rng(0), Lake(settings.lake, SOURCE, MODEL)
    named = np.array(["late", "on time", "never"])[random.integers(0, 3, len(labels))]
    labels["is_fraud"] = named if task == "multiclass" else random.normal(0, 9, len(labels))
    rows = pa.Table.from_pandas(labels.assign(partition="all"), preserve_index=False)
    lake.overwrite("labels", rows, ["partition"])
    result = run(settings)
    found = Dataset(result.uri, load_model_spec(MODEL, settings.models_dir, settings.feature_repo)).holdout()
    expected_labels = labels.set_index("transaction_id")["is_fraud"]
    ids = found.column("transaction_id")
    assert found.labels.tolist() == expected_labels.loc[ids].tolist()
    assert found.entities is None
    counts = pd.Series(found.labels).value_counts().to_dict() if task == "multiclass" else {}
    assert result.holdout.counts == counts
