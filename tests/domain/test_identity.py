"""Which parts of the spec decide a dataset, a fit, a verdict and the training code; all others invalidate nothing."""

from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from testing.spec_files import raw_specs
from training.contract.columns import Column
from training.contract.feature_tables import FeatureTable
from training.contract.feeds import FeedSpec
from training.contract.model_spec import ModelSpec
from training.domain.identity import (
    DECIDES,
    backtest_id,
    code_id,
    dataset_id,
    definition_number,
    digest,
    fit_id,
    partition_number,
    request_id,
    verdict_id,
)

AS_OF = date(2026, 3, 1)
VERSIONS = {"events": 3, "labels": 2}
TABLES = {"events": "a table", "labels": "another"}
#: A dataset is part of what a fit and a verdict are made of.
WITH_DATASET = {"dataset", "fit", "verdict"}

#: A change of the spec (path, value) → the ids that must change with it, and no others.
CHANGES: list[tuple[str, Any, set[str]]] = [
    ("title", "Another title", set()),
    ("description", "Another description", set()),
    ("owner", "another-team", set()),
    ("source.feeds.events.columns.amount.description", "What was paid", set()),
    ("source.feeds.events.columns.amount.maximum", 9e9, set()),
    ("source.feeds.events.columns.more", {"type": "float64"}, WITH_DATASET),
    ("source.feeds.events.row_count", {"minimum": 2}, set()),
    ("source.feeds.events.maximum_quarantined", 0.9, set()),
    ("source.feeds.events.maximum_gap_days", 90, set()),
    ("source.feeds.labels.slack_days", 3, set()),
    ("source.title", "Another title", set()),
    ("source.labels.is_fraud.delay_days", 9, WITH_DATASET | {"code"}),
    ("source.labels.is_fraud.unlabelled_after_delay", "negative", WITH_DATASET | {"code"}),
    ("source.features.tables.terminal_features.every", "1h", {"code"}),
    # The digest of the definitions changes with them.
    ("source.features.tables.terminal_features.ttl_days", 90, set()),
    ("source.features.tables.terminal_features.windows", ["5d"], set()),
    ("source.features.event_columns", ["amount"], WITH_DATASET | {"code"}),
    ("source.resources.steps", {"features": {"memory": "8Gi"}}, set()),
    ("label", "is_disputed", WITH_DATASET | {"code"}),
    ("features", {"service": "another_service"}, WITH_DATASET | {"code"}),
    ("features", ["customer_count_1d"], WITH_DATASET | {"code"}),
    ("training.window_days", 9, WITH_DATASET | {"code"}),
    ("training.windows", ["28d"], WITH_DATASET | {"code"}),
    ("training.after_change", {"holdout_days": 2}, {"code"}),
    ("training.holdout_days", 5, WITH_DATASET | {"code"}),
    ("training.minimum_rows", 17, WITH_DATASET | {"code"}),
    ("training.seed", 5, WITH_DATASET | {"code"}),
    ("training.estimators.logistic_regression", {"C": 0.5}, {"fit", "verdict", "code"}),
    ("training.estimators.mlp", {"epochs": 2}, {"code"}),
    ("evaluation.exclude_known_entities", False, WITH_DATASET),
    ("evaluation.entity", "terminal_id", WITH_DATASET),
    ("evaluation.limits.average_precision", 0.99, {"verdict"}),
    ("evaluation.minimum_skill", 0.1, {"verdict"}),
    ("evaluation.confidence", 0.99, {"verdict"}),
    ("evaluation.k", 7, {"fit", "verdict"}),
    ("task.decision.alert_rate", 0.25, WITH_DATASET),
    ("monitoring.maximum_rows", 500, WITH_DATASET),
    ("monitoring.window_days", 9, set()),
    ("monitoring.maximum_drifted_share", 0.9, set()),
    ("monitoring.minimum_shift", 0.1, set()),
    ("monitoring.minimum_new_share", 0.1, set()),
    ("monitoring.seasonality", ["hour_of_day"], set()),
    ("retraining.cooldown_days", 99, set()),
    ("retraining.budget_per_30_days", 1, set()),
    ("schedule.train", "0 0 1 1 *", set()),
    ("schedule.monitor", "0 0 1 1 *", set()),
    ("approval", {"when": "always"}, set()),
    ("rollout.timeout_seconds", 7, set()),
    ("rollout.guards", {"maximum_error_rate": 0.5}, set()),
    ("resources.steps", {"train": {"gpus": 2}}, set()),
    ("retention.work_days", 7, set()),
    ("source.retention.pages_days", 7, set()),
    ("serving", "elsewhere", set()),
    ("scoring", {"when": "new_data"}, set()),
]


def ids(raw: dict[str, Any]) -> dict[str, str]:
    """Every id of a training under this spec, computed as the steps do."""
    spec = ModelSpec.model_validate(raw)
    of_dataset = dataset_id(spec, AS_OF, VERSIONS, TABLES, spec.training.window_days, spec.training.seed, "definitions")
    parameters = spec.training.estimators["logistic_regression"]
    libraries = {"onnx": "1"}
    fit = fit_id(spec, of_dataset, "logistic_regression", parameters, spec.training.seed, "code", libraries, 2)
    inputs = {"candidates": [fit], "dataset": of_dataset}
    return {
        "dataset": of_dataset,
        "fit": fit,
        "verdict": verdict_id(spec, inputs, 1),
        "code": code_id(spec, "code", "definitions"),
    }


def feed(source: dict[str, Any], name: str, label: str) -> None:
    """One more feed of labels."""
    columns = {"transaction_id": {"type": "int64"}, "closed_at": {"type": "timestamp"}, label: {"type": "bool"}}
    source["feeds"][name] = {"time_column": "closed_at", "id_column": "transaction_id", "columns": columns}
    source["labels"][label] = {"feed": name, "delay_days": 30}


def raw_spec() -> dict[str, Any]:
    raw, source = raw_specs()
    feed(source, "disputes", "is_disputed")
    raw["source"] = source
    raw["training"]["estimators"] |= {"logistic_regression": {}, "mlp": {}}
    return raw


@pytest.mark.parametrize(("path", "value", "changed"), CHANGES, ids=[path for path, _, _ in CHANGES])
def test_a_change_of_the_spec_changes_the_ids_of_what_it_decides(path: str, value: Any, changed: set[str]) -> None:
    raw, before = raw_spec(), ids(raw_spec())
    *sections, last = path.split(".")
    inside = raw
    for section in sections:
        inside = inside.setdefault(section, {})
    assert inside.get(last) != value
    inside[last] = value
    after = ids(raw)
    assert {name for name in before if before[name] != after[name]} == changed


def test_the_allowed_values_of_a_column_decide_where_they_are_the_categories_of_a_feature() -> None:
    def changed(event_columns: list[str]) -> set[str]:
        found = []
        for values in (["web", "shop"], ["web", "shop", "phone"]):
            raw = raw_spec()
            raw["source"]["feeds"]["events"]["columns"]["channel"] = {"type": "category", "values": values}
            raw["source"]["features"]["event_columns"] = event_columns
            found.append(ids(raw))
        before, after = found
        return {name for name in before if before[name] != after[name]}

    assert changed([]) == set()
    assert changed(["channel"]) == WITH_DATASET


def test_every_section_of_the_spec_is_tried() -> None:
    tried = {path.split(".")[0] for path, _, _ in CHANGES}
    assert tried == set(ModelSpec.model_fields) - {"name"}


def test_every_part_of_the_spec_is_named_as_deciding_or_not() -> None:
    """A new section or field fails here until DECIDES in training/domain/identity.py says what it decides."""
    nested: dict[str, type[BaseModel]] = {
        "source.feeds": FeedSpec,
        "source.feeds.columns": Column,
        "source.features.tables": FeatureTable,
    }

    def parts(model: type[BaseModel], prefix: str = "") -> set[str]:
        found = set[str]()
        for name, field in model.model_fields.items():
            path = f"{prefix}{name}"
            inner = nested.get(path, field.annotation)
            split = any(part.startswith(f"{path}.") for part in DECIDES)
            if split and isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= parts(inner, f"{path}.")
            else:
                found.add(path)
        return found

    assert parts(ModelSpec) == set(DECIDES)


def test_what_the_source_has_for_other_models_decides_nothing() -> None:
    raw = raw_spec()
    feed(raw["source"], "losses", "is_lost")
    assert ids(raw) == ids(raw_spec())


def test_the_order_of_the_spec_and_of_columns_does_not_matter() -> None:
    raw = raw_spec()
    columns = raw["source"]["feeds"]["events"]["columns"]
    raw["source"]["feeds"]["events"]["columns"] = dict(reversed(columns.items()))
    assert ids(dict(reversed(raw.items()))) == ids(raw_spec())


def test_what_is_not_in_the_spec_decides_too() -> None:
    spec = ModelSpec.model_validate(raw_spec())
    dataset = dataset_id(spec, AS_OF, VERSIONS, TABLES, 7, 1, "definitions")
    others = [
        dataset_id(spec, date(2026, 3, 2), VERSIONS, TABLES, 7, 1, "definitions"),
        dataset_id(spec, AS_OF, {**VERSIONS, "labels": 3}, TABLES, 7, 1, "definitions"),
        dataset_id(spec, AS_OF, VERSIONS, {**TABLES, "labels": "created again"}, 7, 1, "definitions"),
        dataset_id(spec, AS_OF, VERSIONS, TABLES, 8, 1, "definitions"),
        dataset_id(spec, AS_OF, VERSIONS, TABLES, 7, 2, "definitions"),
        dataset_id(spec, AS_OF, VERSIONS, TABLES, 7, 1, "other definitions"),
        dataset_id(spec, AS_OF, VERSIONS, TABLES, 7, 1, "definitions", date(2026, 2, 1)),
        dataset_id(spec, AS_OF, VERSIONS, TABLES, 7, 1, "definitions", date(2026, 2, 2)),
    ]
    assert len({dataset, *others}) == 9
    fits = [
        fit_id(spec, "d", "mlp", {}, 1, "code", {"torch": "1"}, 2),
        fit_id(spec, "e", "mlp", {}, 1, "code", {"torch": "1"}, 2),
        fit_id(spec, "d", "mlp", {"epochs": 3}, 1, "code", {"torch": "1"}, 2),
        fit_id(spec, "d", "mlp", {}, 2, "code", {"torch": "1"}, 2),
        fit_id(spec, "d", "mlp", {}, 1, "other code", {"torch": "1"}, 2),
        fit_id(spec, "d", "mlp", {}, 1, "code", {"torch": "2"}, 2),
        fit_id(spec, "d", "mlp", {}, 1, "code", {"torch": "1"}, 3),
        fit_id(spec, "d", "mlp", {}, 1, "code", {"torch": "1"}, 2, "28d"),
    ]
    assert len(set(fits)) == 8


def test_how_to_train_after_a_change_decides_only_a_dataset_that_is_made_after_one() -> None:
    found = []
    for gap in (0, 1):
        raw = raw_spec()
        raw["training"]["after_change"] = {"gap_days": gap}
        spec = ModelSpec.model_validate(raw)
        made = [dataset_id(spec, AS_OF, VERSIONS, TABLES, 7, 1, "", change) for change in (None, date(2026, 2, 1))]
        found.append(made)
    (usual, after), (same, other) = found
    assert usual == same
    assert len({usual, after, other}) == 3
    assert verdict_id(spec, {}, 1) != verdict_id(spec, {}, None)
    assert code_id(spec, "code", "definitions") != code_id(spec, "code", "other definitions")


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [("window_days", 9, True), ("maximum_drifted_share", 0.9, True), ("maximum_rows", 500, False)],
)
def test_a_backtest_finds_its_trainings_again_unless_monitoring_decides_a_dataset(
    field: str, value: Any, same: bool
) -> None:
    changed = raw_spec()
    changed.setdefault("monitoring", {})[field] = value
    specs = [ModelSpec.model_validate(raw) for raw in (raw_spec(), changed)]
    before, after = (backtest_id(spec, VERSIONS, TABLES, "code") for spec in specs)
    assert (before == after) is same


def test_requests_keep_the_ids_that_they_had_in_the_version_before() -> None:
    assert request_id("card_fraud", "drift", AS_OF, {"champion": 1}) == "drift-f0539d8630fd"


def test_the_numbers_in_commits_are_those_of_the_version_before() -> None:
    """With other numbers each partition would be ingested again and each feature table computed anew."""
    assert definition_number(["SELECT"], 3) == 574317745504484608
    columns = {"id": {"type": "string"}, "at": {"type": "timestamp"}}
    feed = FeedSpec.model_validate({"time_column": "at", "id_column": "id", "columns": columns})
    assert partition_number("ab", feed) == 7134671261234411
    assert partition_number("ab", feed.model_copy(update={"id_column": "at"})) == 7134671261234411
    assert partition_number("ab", feed.model_copy(update={"maximum_quarantined": 0.5})) != 7134671261234411


def test_nan_has_no_identity() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(float("nan"))
