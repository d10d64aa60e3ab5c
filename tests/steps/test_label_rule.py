"""One rule for labels in dataset, performance, evidence and feature SQL; and names that both feeds may use."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from testing.spec_files import Raw, spec_files
from tests.cases import others_long
from tests.feature_repo.payments_and_features import MODEL, SOURCE, compute, day, midnight, payments, put
from tests.feature_repo.written_by_hand import BY_HAND
from tests.steps.prediction_tables import prediction_table
from training.adapters import tables
from training.adapters.lake import Lake
from training.contract.base import Days
from training.contract.messages import DatasetInputs, DatasetResult
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.rollout_spec import StageSpec
from training.domain.frames import LABEL
from training.domain.labels import known_before, labelled
from training.domain.rollout import Stage
from training.settings import Settings
from training.steps import dataset
from training.steps.rollout.evidence import LateLabels

DAYS, AS_OF = 40, 38
SPANS = Days(start=day(0), end=day(DAYS))
Change = Callable[[Raw, Raw], None]


def place_as_is(model: Raw, source: Raw) -> None:
    """No change."""


def place(folder: Path, change: Change = place_as_is) -> tuple[Settings, ModelSpec]:
    def small(model: Raw, source: Raw) -> None:
        model["training"] |= {"window_days": 7, "holdout_days": 7, "minimum_rows": 20, "minimum_class_rows": 3}
        model["training"]["minimum_labelled_share"] = 0
        change(model, source)

    settings = Settings(home=folder / "home", **spec_files(folder, small))
    return settings, load_model_spec(MODEL, settings.models_dir, settings.feature_repo)


def log_all(settings: Settings, spec: ModelSpec, events: pd.DataFrame) -> None:
    table = prediction_table(spec, events.assign(score=0.5))
    Lake(settings.lake, SOURCE, MODEL).overwrite("predictions", table, ["day"])


def made(settings: Settings) -> tuple[DatasetResult, pd.DataFrame]:
    result = dataset.run(DatasetInputs(model=MODEL, as_of=day(AS_OF)), settings)
    return result, pd.concat([pd.read_parquet(result.train.uri), pd.read_parquet(result.holdout.uri)])


def in_performance(settings: Settings, spec: ModelSpec, events: pd.DataFrame) -> dict[int, int]:
    lake = Lake(settings.lake, SOURCE, MODEL)
    known = tables.Labels(lake, spec, lake.version("labels")).known_at(day(AS_OF), events["transaction_id"])
    found = labelled(events, known, spec, midnight(AS_OF))
    return dict(zip(found["transaction_id"], found[LABEL], strict=True))


def in_evidence(settings: Settings, spec: ModelSpec) -> dict[int, int]:
    began = datetime(2025, 1, 1, tzinfo=UTC)
    stage = Stage(move=1, number=1, spec=StageSpec(mode="shadow", requests=1), version=1, began=began)
    found = LateLabels(stage, None, spec, settings).of(1)
    return dict(zip(found["transaction_id"], found[LABEL], strict=True))


def test_a_correction_with_an_equal_time_is_one_value_everywhere(tmp_path: Path) -> None:
    settings, spec = place(tmp_path)
    lake = Lake(settings.lake, SOURCE, MODEL)
    events, labels = payments(DAYS, entities=9, fraud=0.3)
    put(settings, events, labels)
    frauds = labels[(labels["is_fraud"] == 1) & (labels["transaction_id"] % 2 == 0)]
    both = lake.scan("labels").to_table().to_pandas()
    corrected = frauds.assign(is_fraud=0, partition="b")  # "all" sorts before
    rows = pa.Table.from_pandas(pd.concat([corrected, both]), schema=lake.scan("labels").schema, preserve_index=False)
    lake.replace("labels", rows, "true", ["partition"])
    compute(settings, 0, DAYS + 1)
    log_all(settings, spec, events)
    truth = labels.set_index("transaction_id")["is_fraud"].to_dict() | dict.fromkeys(frauds["transaction_id"], 0)

    _, rows_of_dataset = made(settings)
    assert set(frauds["transaction_id"]) & set(rows_of_dataset["transaction_id"])
    in_dataset = dict(zip(rows_of_dataset["transaction_id"], rows_of_dataset["is_fraud"], strict=True))
    assert in_dataset == {k: truth[k] for k in in_dataset}
    for found in (in_performance(settings, spec, events), in_evidence(settings, spec)):
        assert found
        assert found == {k: truth[k] for k in found}
    # The features are those of labels that said so from the start.
    again, _ = place(tmp_path / "again")
    put(again, events, labels.assign(is_fraud=labels["transaction_id"].map(truth)))
    compute(again, 0, DAYS + 1)
    pd.testing.assert_frame_equal(*(_terminal(each) for each in (settings, again)))


def _terminal(settings: Settings) -> pd.DataFrame:
    rows = Lake(settings.lake, SOURCE, MODEL).scan("terminal_features").to_table().to_pandas()
    return rows.sort_values(["terminal_id", "day"], ignore_index=True)


@pytest.mark.ci
def test_labels_that_name_positives_only_are_as_good_as_all_of_them(tmp_path: Path) -> None:
    def silent(model: Raw, source: Raw) -> None:
        source["labels"]["is_fraud"]["unlabelled_after_delay"] = "negative"
        model["training"]["minimum_labelled_share"] = 1

    def full(model: Raw, source: Raw) -> None:
        model["training"]["minimum_labelled_share"] = 1

    events, labels = payments(DAYS, entities=9, fraud=0.2)  # each reported 7 days after its event, the delay
    late = labels[labels["is_fraud"] == 0].iloc[::20].assign(is_fraud=1)
    late["reported_at"] += timedelta(days=4)
    everything = pd.concat([labels, late], ignore_index=True)
    newest = everything.sort_values("reported_at").drop_duplicates("transaction_id", keep="last")
    truth = newest.set_index("transaction_id")["is_fraud"].to_dict()
    positives = everything[everything["is_fraud"] == 1].reset_index(drop=True)
    found = []
    for name, change, told in (("full", full, everything), ("silent", silent, positives)):
        settings, spec = place(tmp_path / name, change)
        put(settings, events, told)
        compute(settings, 0, DAYS + 1)
        log_all(settings, spec, events)
        _, rows = made(settings)
        found.append((rows, _terminal(settings), in_performance(settings, spec, events)))
        evidence = in_evidence(settings, spec)
        assert evidence == {k: truth[k] for k in evidence}
        # The rollout follows what has been told: silence counts up to the newest report.
        silence_ends = told["reported_at"].max() - timedelta(days=7)
        known = set(told["transaction_id"]) | set(events[events["event_time"] < silence_ends]["transaction_id"])
        assert set(evidence) == known
    (rows, features, measured), (same_rows, same_features, same_measured) = found
    pd.testing.assert_frame_equal(rows, same_rows)
    pd.testing.assert_frame_equal(features, same_features)
    assert measured == same_measured


@pytest.mark.parametrize(
    "name", others_long(["reported_at", "is_fraud", "excluded", "known", "score", "day", "horizon", "label"])
)
def test_an_event_column_may_be_called_like_a_column_of_the_labels_or_of_ours(tmp_path: Path, name: str) -> None:
    def more(model: Raw, source: Raw) -> None:
        source["feeds"]["events"]["columns"][name] = {"type": "float64", "nullable": True}
        source["feeds"]["labels"]["columns"]["customer_id"] = {"type": "int64"}

    settings, spec = place(tmp_path, more)
    events, labels = payments(DAYS, entities=9, fraud=0.3)
    events = events.assign(**{name: 1.5})
    labels = labels.assign(customer_id=events["customer_id"])
    versions = put(settings, events, labels)
    log_all(settings, spec, events)
    lake = Lake(settings.lake, SOURCE, MODEL)
    known = tables.Labels(lake, spec, versions["labels"]).known_at(day(AS_OF))
    of_days = tables.Events(lake, spec.source, versions["events"]).within(SPANS)
    assert known_before(events, known, of_days, spec).any()
    assert in_performance(settings, spec, events)
    assert len(in_evidence(settings, spec)) == len(events)
    if name == "is_fraud":
        return  # the model's SQL itself would have to say whose it means
    compute(settings, 0, DAYS + 1)
    _, rows = made(settings)
    truth = labels.set_index("transaction_id")["is_fraud"]
    assert (rows["is_fraud"] == rows["transaction_id"].map(truth)).all()


def test_reports_from_before_the_label_column_was_another_do_not_count(tmp_path: Path) -> None:
    settings, spec = place(tmp_path)
    events, labels = payments(DAYS)
    put(settings, events, labels)  # Reports that know `is_fraud` alone.

    def renamed(model: Raw, source: Raw) -> None:
        columns, labels = source["feeds"]["labels"]["columns"], source["labels"]
        columns["chargeback"], labels["chargeback"] = columns.pop("is_fraud"), labels.pop("is_fraud")
        model["label"] = "chargeback"

    spec_files(tmp_path, renamed, BY_HAND)
    spec = load_model_spec(MODEL, settings.models_dir, settings.feature_repo)
    early = labels.assign(reported_at=labels["reported_at"] - timedelta(hours=1))
    put(settings, events, early.rename(columns={"is_fraud": "chargeback"}), "delivered anew")
    lake = Lake(settings.lake, SOURCE, MODEL)
    reader = tables.Labels(lake, spec, lake.version("labels"))
    known = reader.known_at(None).set_index("transaction_id")[LABEL]
    assert known.dtype == "int64"
    assert known.to_dict() == dict(zip(labels["transaction_id"], labels["is_fraud"], strict=True))
    version = lake.version("labels")
    none = lake.scan("events").schema.empty_table()
    relation = tables.reports_relation(lake, spec.source, "labels", version, none, day(0), day(2 * DAYS))
    assert relation.make()["chargeback"].null_count == 0
    newest = reader.newest_report()
    assert newest == early["reported_at"].max()


@pytest.mark.ci
def test_a_report_without_a_label_says_that_the_event_has_none_by_design(tmp_path: Path) -> None:
    """It counts as labelled, and the event is left out everywhere: as if nothing were ever known of it."""

    def nullable(model: Raw, source: Raw) -> None:
        source["feeds"]["labels"]["columns"]["is_fraud"]["nullable"] = True
        model["training"]["minimum_labelled_share"] = 1

    events, labels = payments(DAYS, entities=9, fraud=0.3)
    labels["reported_at"] = labels["reported_at"].dt.floor("D") + timedelta(hours=1)
    kinds = labels["transaction_id"] % 5
    nothing = labels.assign(is_fraud=pd.array([None] * len(labels), "Int64"))
    told = [
        labels[kinds != 0],  # Of kind 0, no label ever comes.
        nothing[kinds == 0],
        nothing[kinds == 1].assign(reported_at=labels["reported_at"] + timedelta(hours=1)),  # It is withdrawn.
        nothing[kinds == 2].assign(reported_at=labels["reported_at"] - timedelta(hours=1)),  # It comes later.
        nothing[kinds == 3],  # At the same time, a label counts.
    ]
    full, silent = (place(tmp_path / name, change) for name, change in (("full", nullable), ("silent", place_as_is)))
    put(full[0], events, pd.concat(told, ignore_index=True).astype({"is_fraud": "Int64"}))
    put(silent[0], events, labels[kinds > 1])
    found = []
    for settings, spec in (full, silent):
        compute(settings, 0, DAYS + 1)
        log_all(settings, spec, events)
        rows = made(settings)[1][["transaction_id", "is_fraud"]]
        found.append((rows, in_performance(settings, spec, events), in_evidence(settings, spec)))
    pd.testing.assert_frame_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]
    assert {kind % 5 for kind in found[0][0]["transaction_id"]} == {2, 3, 4}


@pytest.mark.parametrize("days_early", others_long([5, 1, 30]))
def test_a_label_reported_before_its_event_counts_from_the_event_on_whatever_the_window(
    tmp_path: Path, days_early: int
) -> None:
    """As if each had been reported when its event happened."""
    events, labels = payments(DAYS, entities=300, fraud=0.15)
    times = labels["transaction_id"].map(events.set_index("transaction_id")["event_time"])
    found = []
    for name, reported in (("early", times - timedelta(days=days_early)), ("at once", times)):
        settings, spec = place(tmp_path / name)
        put(settings, events, labels.assign(reported_at=labels["reported_at"].where(labels.index % 2 == 0, reported)))
        if not found:
            compute(settings, 0, DAYS + 1)
        else:  # The features of both are those of the first: feature SQL has its own rule.
            source, target = Lake(found[0][0].lake, SOURCE, MODEL), Lake(settings.lake, SOURCE, MODEL)
            for table in spec.source.entities:
                target.overwrite(table, source.scan(table).to_table(), ["day"])
        log_all(settings, spec, events)
        result, rows = made(settings)
        past = events[events["event_time"] < midnight(AS_OF)]
        found.append((settings, rows, in_performance(settings, spec, past), in_evidence(settings, spec)))
    (_, *early), (_, *at_once) = found
    pd.testing.assert_frame_equal(early[0], at_once[0])
    dates = events["event_time"].dt.date
    within = [
        dates.between(days.start, days.end, inclusive="left") for days in (result.train.days, result.holdout.days)
    ]
    assert len(early[0]) == (within[0] | within[1]).sum()  # No event lacks its label.
    assert early[1:] == at_once[1:]


@pytest.mark.parametrize("type_", ["string", "int64"])
def test_no_event_has_no_labels_whatever_the_type_of_ids(tmp_path: Path, type_: str) -> None:
    def ids(model: Raw, source: Raw) -> None:
        for feed in source["feeds"].values():
            feed["columns"]["transaction_id"] = {"type": type_, "unique": True}

    settings, spec = place(tmp_path, ids)
    kind = {"string": str, "int64": int}[type_]
    versions = put(settings, *(rows.astype({"transaction_id": kind}) for rows in payments(DAYS)))
    reader = tables.Labels(Lake(settings.lake, SOURCE, MODEL), spec, versions["labels"])
    assert len(reader.known_at(None))
    assert reader.known_at(None, pd.Series([], dtype=object)).empty
    assert reader.known_at(None, pd.Series([None], dtype=object)).empty
