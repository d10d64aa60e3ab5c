"""The specs of source and model: what is wrong is named, what is right is hashed."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from testing.quick_yaml import yaml_of
from testing.spec_files import MODEL, SOURCE, raw_specs
from tests.cases import others_in_ci
from training.contract.errors import ConfigError
from training.contract.model_spec import MODELS_DIR, ModelSpec, load_model_spec, model_names
from training.contract.names import listed
from training.contract.source_spec import SOURCES_DIR, load_source_spec, source_names


@dataclass
class Files:
    """The fields of the two files."""

    folder: Path
    model: dict[str, Any]
    source: dict[str, Any]

    def load(self, name: str = MODEL) -> ModelSpec:
        for folder, file, fields in (("models", name, self.model), ("repo", SOURCE, self.source)):
            (self.folder / folder).mkdir(exist_ok=True)
            (self.folder / folder / f"{file}.yaml").write_text(yaml_of(fields))
        return load_model_spec(name, self.folder / "models", self.folder / "repo")

    def set(self, path: str, value: Any) -> None:
        """Of the source for its own sections, of the model else."""
        *parents, last = path.split(".")
        of_source = path.startswith(("source.", "feeds.", "labels", "features.tables"))
        fields = self.source if of_source else self.model
        for key in parents:
            fields = fields if key == "source" else fields.setdefault(key, {})
        fields[last] = value


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, *raw_specs())


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("descripton", "description"),
        ("training.windowdays", "window_days"),
        ("monitoring.minimum_class_row", "minimum_class_rows"),
        ("retraining.cooldown", "cooldown_days"),
        ("task.decison", "decision"),
        ("labels.is_fraud.unlabeled_after_delay", "unlabelled_after_delay"),
        ("feeds.events.slack_day", "slack_days"),
        ("feeds.events.columns.amount.minimun", "minimum"),
        ("features.tables.customer_features.ttl_day", "ttl_days"),
    ],
)
def test_an_unknown_field_names_the_one_that_was_probably_meant(files: Files, path: str, meant: str) -> None:
    files.set(path, 1)
    with pytest.raises(ConfigError) as error:
        files.load()
    assert f"Did you mean {meant!r}?" in error.value.hint


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"policy": "cost_aware", "costs": {"training": 10}}, "retraining.costs.loss_per_1000_predictions"),
        ({"policy": "cost_aware", "costs": {"loss_per_1000_predictions": 10}}, "retraining.costs.training"),
        ({"maximum_cost_per_30_days": 100}, "retraining.costs.training"),
    ],
)
def test_prices_that_are_compared_must_be_there(files: Files, fields: dict[str, Any], place: str) -> None:
    for name, value in fields.items():
        files.set(f"retraining.{name}", value)
    with pytest.raises(ConfigError, match=f"{place} is missing"):
        files.load()
    files.set("retraining.costs", {"training": 10.0, "loss_per_1000_predictions": 10.0})
    files.load()


def test_the_policy_fixed_needs_a_schedule(files: Files) -> None:
    files.set("schedule.train", None)
    files.load()
    files.set("retraining.policy", "fixed")
    with pytest.raises(ConfigError, match=r"retraining.policy is fixed, which trains by schedule only"):
        files.load()


def test_an_unknown_policy_names_those_that_there_are(files: Files) -> None:
    files.set("retraining.policy", "sometimes")
    with pytest.raises(ConfigError, match="'combined', 'cost_aware', 'drift', 'fixed', 'performance'"):
        files.load()


@pytest.mark.parametrize("name", model_names())
def test_every_model_here_has_a_valid_spec(name: str) -> None:
    assert load_model_spec(name).name == name


def test_a_spec_can_be_written_and_read_again() -> None:
    spec = load_model_spec("card_fraud")
    assert ModelSpec.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize("name", source_names())
def test_every_source_here_has_a_valid_spec(name: str) -> None:
    assert load_source_spec(name).name == name


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("training.window_days", 0, "training.window_days: Input should be greater than or equal to 1"),
        ("training.windowdays", 14, "training.windowdays: There is no such field"),
        ("monitoring.embeddings", ["payment_amount"], "which is not a column of events with lists of floats"),
        ("training.estimators", {}, "training.estimators: Dictionary should have at least 1 item"),
        ("training.estimators", {"catboost": {}}, "training.estimators.catboost: There is no such name. It should be"),
        ("owner", None, "owner: Input should be a valid string"),
        ("label", "fraud", "label names 'fraud', which is not one of the labels ['is_fraud'] of the source"),
        ("labels", {"fraud": {"feed": "labels", "delay_days": 7}}, "labels.fraud is not one of the columns"),
        ("labels.is_fraud.feed", "reports", "labels.is_fraud.feed names 'reports', which is not one of the feeds"),
        ("labels.is_fraud", {"feed": "labels"}, "labels.is_fraud.delay_days is missing"),
        ("labels", {}, "labels: Dictionary should have at least 1 item"),
        ("feeds.labels.id_column", "payment_id", "feeds.labels.id_column names 'payment_id'"),
        ("feeds.labels.id_column", "reported_at", "feeds.labels.id_column is 'reported_at', but the events have"),
        ("evaluation.entity", "card_id", "evaluation.entity names 'card_id'"),
        ("features.tables.customer_features.entity", "customer", "tables.customer_features.entity names 'customer'"),
        ("features", [], "features is empty"),
        ("features", ["a", "b", "a"], "features names a twice"),
        ("features", "some", "features"),
        ("source", {"name": "card_payments"}, "source is {'name': 'card_payments'}, not the name of a source"),
        ("source", "payments", "source names 'payments', but there is no spec at"),
        ("feeds.events.time_column", "amount", "time_column 'amount' must be a column of type timestamp"),
        ("evaluation.limits", {"roc_auc": 0.5}, "evaluation.limits must have a limit for the primary metric"),
        ("monitoring.maximum_drifted_share", 1.5, "maximum_drifted_share: Input should be less than or equal to 1"),
        ("name", "Card Fraud", "name: Input should be a name (a-z, digits and underscores"),
        ("training.windows", ["90"], "windows.0: Input should be so many days such as 90d"),
        ("training.windows", ["٣d"], "windows.0: Input should be so many days such as 90d"),
        ("schedule.train", "٣ 4 * * 1", "schedule.train is '٣ 4 * * 1', which has '٣' as its minute"),
        ("training.after_change.gap_days", 10**6, "gap_days: Input should be less than or equal to 36500"),
        ("retention", {"work_days": 10**6}, "work_days: Input should be less than or equal to 36500"),
        ("approval", {"timeout_hours": 1e308}, "timeout_hours: Input should be less than or equal to 8784"),
        ("rollout.timeout_seconds", 10**12, "timeout_seconds: Input should be less than or equal to"),
        (
            "feeds.events.columns.transaction_id.values",
            [1, 2],
            "values is set, but every event has an id",
        ),
        ("feeds.events.slack_days", 10**6, "slack_days: Input should be less than or equal to 36500"),
        ("retraining.costs", {"loss_per_1000_predictions": 5e-324}, "predictions: Input should be greater than"),
        ("retraining.costs", {"training": 1e300}, "Input should be less than or equal to 1000000000000"),
        ("owner", "a\0b", "owner: Input should be text without control characters"),
    ],
)
def test_a_wrong_field_is_named(files: Files, path: str, value: Any, complaint: str) -> None:
    files.set(path, value)
    with pytest.raises(ConfigError) as raised:
        files.load()
    assert complaint in raised.value.message
    assert str(files.folder / "models" / "card_fraud.yaml") in raised.value.message


def test_a_missing_feed_of_events_is_named(files: Files) -> None:
    del files.source["feeds"]["events"]
    with pytest.raises(ConfigError, match="feeds must have the feed events"):
        files.load()


def test_a_feed_without_a_label_is_named(files: Files) -> None:
    files.source["feeds"]["disputes"] = files.source["feeds"]["labels"]
    with pytest.raises(ConfigError, match=r"feeds\.disputes reports no label"):
        files.load()


def test_a_source_may_have_several_feeds_of_labels(files: Files) -> None:
    files.source["feeds"]["disputes"] = {
        "time_column": "closed_at",
        "id_column": "transaction_id",
        "columns": {"transaction_id": INT, "closed_at": TIME, "is_lost": {"type": "bool"}},
    }
    files.source["labels"]["is_lost"] = {"feed": "disputes", "delay_days": 60}
    files.model["label"] = "is_lost"
    spec = files.load()
    assert spec.source.feed_names == ["events", "labels", "disputes"]
    assert spec.feed_names == ["events", "disputes"]
    assert (spec.label_spec.time_column, spec.label_spec.delay_days) == ("closed_at", 60)


def test_labels_that_one_row_reports_are_equally_late(files: Files) -> None:
    files.source["feeds"]["labels"]["columns"]["is_lost"] = {"type": "bool"}
    files.source["labels"]["is_lost"] = {"feed": "labels", "delay_days": 60}
    with pytest.raises(ConfigError, match="labels of the feed labels differ in delay_days"):
        files.load()


def test_a_label_in_the_event_file_is_no_field_of_a_request(files: Files) -> None:
    files.source["feeds"]["events"]["columns"]["was_refused"] = {"type": "bool"}
    files.source["labels"]["was_refused"] = {"feed": "events"}
    files.model["label"] = "was_refused"
    spec = files.load()
    assert "was_refused" not in spec.request_columns
    assert (spec.label_spec.feed, spec.label_spec.delay_days) == ("events", 0)
    files.source["labels"]["was_refused"]["delay_days"] = 3
    with pytest.raises(ConfigError, match=r"was_refused\.delay_days is 3, but the label is in the event file"):
        files.load()


def test_an_older_spec_of_one_file_names_the_migration(files: Files) -> None:
    files.model["feeds"] = files.source["feeds"]
    with pytest.raises(ConfigError, match="it is a spec of the layout before") as raised:
        files.load()
    assert "make migrate" in raised.value.hint


def test_a_spec_lies_in_the_file_of_its_name(files: Files) -> None:
    with pytest.raises(ConfigError, match="holds the spec of 'card_fraud'"):
        files.load("churn")


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("name: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not valid YAML"):
        load_model_spec("broken", tmp_path)


def test_a_misspelt_model_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError) as raised:
        load_model_spec("card_fruad")
    assert raised.value.hint.startswith("Did you mean 'card_fraud'? Known models: ")


@pytest.mark.parametrize("name", ["unknown", "../card_fraud", "card_fraud.yaml", ""])
def test_an_unknown_model_names_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="No spec for model") as raised:
        load_model_spec(name)
    assert "card_fraud" in raised.value.hint


def test_the_hash_follows_the_policy_and_nothing_else(files: Files) -> None:
    original = files.load()
    files.model = dict(reversed(files.model.items()))
    assert files.load().config_hash == original.config_hash
    files.set("training.window_days", 21)
    changed = files.load()
    assert changed.config_hash != original.config_hash
    assert changed.source.config_hash == original.source.config_hash
    files.set("feeds.events.slack_days", 1)
    assert files.load().config_hash != changed.config_hash
    assert files.load().source.config_hash != original.source.config_hash


def _column(path: str, **fields: Any) -> tuple[str, Any]:
    return f"feeds.events.columns.{path}", fields


INT = {"type": "int64"}
TIME = {"type": "timestamp"}
LABEL = "feeds.labels.columns.is_fraud"
LATE = {"feed": "labels", "delay_days": 7}
FEED = {"time_column": "t", "id_column": "transaction_id", "columns": {"transaction_id": INT, "t": TIME}}
TABLE = {"entity": "customer_id", "history_days": 7}

CONTRADICTIONS: list[tuple[str, Any, str]] = [
    # A column's own rules.
    (*_column("x", type="float64", minimum=10, maximum=5), "x.minimum is 10, above the maximum 5"),
    (*_column("x", type="string", minimum=0), "x.minimum is set, but a column of type string has no bounds"),
    (*_column("x", type="bool", maximum=1), "x.maximum is set, but a column of type bool has no bounds"),
    (*_column("x", type="timestamp", minimum=0), "x.minimum is 0, which is not a timestamp"),
    (*_column("x", type="int64", minimum=0.5), "x.minimum is 0.5, which is not an int64"),
    (*_column("x", type="int64", maximum=2**63), "which is not an int64"),
    (*_column("x", type="float64", minimum=float("nan")), "finite number"),
    (*_column("x", type="float64", maximum=float("inf")), "finite number"),
    (*_column("x", type="float64", minimum="0"), "x.minimum"),
    (*_column("x", type="float64", minimum=True), "x.minimum"),
    (
        *_column("x", type="string", values=[False, "SE"]),
        "x.values holds False (bool), but the column is of type string",
    ),
    (*_column("x", type="string", values=[1, 2]), "x.values holds 1 (int), 2 (int), but the column is of type string"),
    (*_column("x", type="int64", values=["0"]), "x.values holds '0' (str), but the column is of type int64"),
    (*_column("x", type="int64", values=[1.0]), "x.values holds 1.0 (float), but the column is of type int64"),
    (*_column("x", type="int64", values=[True]), "x.values holds True (bool), but the column is of type int64"),
    (*_column("x", type="bool", values=[0, 1]), "x.values holds 0 (int), 1 (int), but the column is of type bool"),
    (*_column("x", type="timestamp", values=["2026-01-05"]), "x.values is set, but a column of type timestamp"),
    (*_column("x", type="int64", values=[]), "x.values is empty"),
    (*_column("x", type="int64", values=[1, 1, 2]), "x.values holds 1 more than once"),
    (*_column("x", type="float64", values=[1, 7.5], maximum=5), "x.values holds 7.5, outside the column's own"),
    (*_column("x", type="int64", nullable="yes"), "x.nullable"),
    # A feed's.
    ("feeds.events.row_count", {"minimum_ratio": 5, "maximum_ratio": 1}, "row_count.minimum_ratio is 5, above"),
    ("feeds.events.row_count", {"minimum_ratio": 1.5}, "row_count.minimum_ratio is 1.5"),
    ("feeds.events.row_count", {"maximum_ratio": 0.5}, "row_count.maximum_ratio is 0.5"),
    ("feeds.events.columns.event_time", {**TIME, "nullable": True}, "time_column 'event_time' may be null"),
    # Names.
    ("feeds.events.columns.partition", INT, "columns.partition has a reserved name"),
    ("feeds.labels.columns.Partition", INT, "columns.Partition has a reserved name"),
    ("feeds.events.columns.Amount", INT, "only in upper and lower case, which SQL ignores"),
    ("feeds.events.columns._x", INT, "columns._x is not a valid name"),
    ("feeds.events.columns.a b", INT, "columns.a b is not a valid name"),
    ("feeds.events.columns.prix_é", INT, "is not a valid name"),
    ("feeds.events.columns.", INT, "is not a valid name"),
    ("feeds.events.columns.event_timestamp", TIME, "event_timestamp has a reserved name, which Feast"),
    ("feeds.events.columns.entity_row_id", INT, "entity_row_id has a reserved name, which Feast"),
    ("features.tables.labels", TABLE, "features.tables.labels has a reserved name"),
    ("features.tables.predictions", TABLE, "features.tables.predictions has a reserved name"),
    ("feeds.quarantine", FEED, "feeds.quarantine has a reserved name"),
    # The label.
    (
        LABEL,
        {"type": "string", "values": ["fraud"]},
        "whose type is string, but the label of a binary task must be an integer (0 or 1) or bool",
    ),
    (LABEL, {"type": "float64"}, "label names 'is_fraud', whose type is float64"),
    (LABEL, INT, "label names 'is_fraud', whose values must limit the label to 0 and 1"),
    (LABEL, {**INT, "values": [1, 2]}, "label names 'is_fraud', whose values must limit the label to 0 and 1"),
    (LABEL, {**INT, "values": [0]}, "label names 'is_fraud', whose values must limit the label to 0 and 1"),
    (LABEL, {**INT, "values": [1]}, " allows positive labels only"),
    (LABEL, {**INT, "minimum": 1, "maximum": 1}, " allows positive labels only"),
    (LABEL, {"type": "bool", "values": [True]}, " allows positive labels only"),
    ("labels.transaction_id", LATE, "labels.transaction_id is also feeds.labels.id_column"),
    ("labels.reported_at", LATE, "labels.reported_at is also feeds.labels.time_column"),
    # Ids and entities.
    (
        "feeds.events.columns.transaction_id",
        {"type": "string", "unique": True},
        "is int64 in labels and string in events",
    ),
    ("feeds.events.columns.transaction_id", {"type": "float64", "unique": True}, "transaction_id.type is float64"),
    ("feeds.labels.columns.transaction_id", {**INT, "nullable": True}, "transaction_id.nullable may be null"),
    ("feeds.events.columns.transaction_id", INT, "transaction_id.unique must be true"),
    ("evaluation.entity", "amount", "evaluation.entity names 'amount', a column of type float64"),
    (
        "features.tables.hours",
        {**TABLE, "entity": "event_time"},
        "features.tables.hours.entity names 'event_time', a column of type timestamp",
    ),
    ("rollout.sticky_by", "amount", "rollout.sticky_by names 'amount', a column of type float64"),
    # Windows, gates, guards.
    ("training.window_days", 10**6, "training.window_days: Input should be less than or equal to 36500"),
    ("training.holdout_days", 0, "training.holdout_days"),
    ("training.window_days", "14", "training.window_days: Input should be a valid integer"),
    ("evaluation.k", True, "evaluation.k: Input should be a valid integer (YAML reads unquoted yes"),
    ("title", False, "title: Input should be a valid string (YAML reads unquoted yes"),
    ("features.tables.hours", {**TABLE, "history_days": 10**9}, "features.tables.hours.history_days"),
    ("evaluation.limits", {"average_precision": 1.2}, "evaluation.limits.average_precision is 1.2, but the metric is"),
    ("evaluation.margins", {"roc_auc": -0.1}, "evaluation.margins.roc_auc"),
    (
        "evaluation.cost",
        {"maximum_price": 1.0},
        "evaluation.cost.maximum_price limits what a training costs, but there",
    ),
    ("evaluation.cost", {"maximum_seconds": 0}, "evaluation.cost.maximum_seconds: Input should be greater than 0"),
    ("evaluation.latency", {"maximum_p99": 5}, "evaluation.latency.maximum_p99: There is no such field"),
    ("evaluation.stability", {"seeds": 21}, "evaluation.stability.seeds: Input should be less than or equal to 20"),
    ("evaluation.robustness", {"maximum_changed": {"noise": -1}}, "evaluation.robustness.maximum_changed.noise"),
    ("evaluation.robustness", {"noise": 0}, "evaluation.robustness.noise: Input should be greater than 0"),
    ("evaluation.leakage", {"maximum_explained": 2}, "evaluation.leakage.maximum_explained: Input should be less"),
    ("retraining.costs", {"cpu_hour": -1}, "retraining.costs.cpu_hour: Input should be greater than or equal to 0"),
    ("rollout.guards", {"minimum_alert_ratio": 0.9, "maximum_alert_ratio": 0.5}, "minimum_alert_ratio is 0.9, above"),
    ("rollout.guards", {"maximum_p99_ms": float("inf")}, "rollout.guards.maximum_p99_ms"),
    ("schedule.train", "0 3 * *", "schedule.train is '0 3 * *', which has 4 fields instead of 5"),
    ("schedule.monitor", "0 25 * * *", "schedule.monitor is '0 25 * * *', which has '25' as its hour"),
    ("scoring.when", "daily", "scoring.when is 'daily', which has 1 fields instead of 5"),
    ("serving", None, "serving is null, and there is no section scoring, so nothing would use the model"),
]


@pytest.mark.parametrize(("path", "value", "complaint"), CONTRADICTIONS)
def test_a_contradiction_is_refused_and_says_what_to_do(files: Files, path: str, value: Any, complaint: str) -> None:
    files.set(path, value)
    with pytest.raises(ConfigError) as raised:
        files.load()
    assert complaint in raised.value.message
    assert raised.value.hint


#: (place, value, what is said, the hint). pydantic says of each type of a union why the value is none.
TYPING_ERRORS = [
    ("features", "al", "schema: features: Input should be 'all' or a list, `[a, b]` or fields", "Did you mean 'all'?"),
    ("evaluation.margins", {"roc_auc": {"relativ": 0.1}}, "margins.roc_auc.relative is missing", "Did you mean 'rela"),
    ("feeds.events.row_count", 7, "row_count: Input should be fields, `name: value`, not 7", "docs/reference.md"),
    ("training.estimators", {"mlp": None}, "estimators.mlp: Input should be fields, `name: value`, but nothing", ""),
    ("training.estimators", {"mpl": {}}, "estimators.mpl: There is no such name", "Did you mean 'mlp'? Correct"),
    ("task.kind", "binery", "schema: task.kind: Input should be", "Did you mean 'binary'?"),
    ("task.interval", {"coverage": 0.9}, "task.interval: There is no such field", "It belongs to another kind"),
    ("features.tables.customer_features.ttl", 7, "ttl: There is no such field", "Fields here: entity, every, ttl_days"),
    ("serving", "My service", "(a-z, digits and underscores, a letter first), not 'My service'", "docs/reference.md"),
    ("feeds.events.columns.x", {"type": "decimal(5", "2)": None}, "is not a type", "Quote a type with a comma"),
]


@pytest.mark.parametrize(("path", "value", "said", "hint"), TYPING_ERRORS)
def test_a_typing_error_is_told_in_the_words_of_the_file(
    files: Files, path: str, value: Any, said: str, hint: str
) -> None:
    files.set(path, value)
    with pytest.raises(ConfigError) as raised:
        files.load()
    assert said in raised.value.message
    assert hint in raised.value.hint
    for word in ("constrained", "literal[", "tuple[", "Relative", "dictionary", "evaluation.primary"):
        assert word not in raised.value.message
    assert raised.value.hint.count("docs/reference.md") <= 1
    assert f"Did you mean {value!r}" not in raised.value.hint


def test_all_contradictions_are_told_at_once(files: Files) -> None:
    files.source["feeds"]["labels"]["columns"]["is_fraud"] = {"type": "string"}
    files.model["schedule"]["train"] = "weekly"
    files.model["rollout"]["sticky_by"] = "amount"
    with pytest.raises(ConfigError) as raised:
        files.load()
    for field in ("label names", "schedule.train is", "rollout.sticky_by names"):
        assert field in raised.value.message


def test_all_contradictions_of_a_source_are_told_at_once(files: Files) -> None:
    files.source["features"]["tables"]["customer_features"]["entity"] = "amount"
    files.source["feeds"]["events"]["columns"]["transaction_id"] = INT
    with pytest.raises(ConfigError) as raised:
        files.load()
    for field in ("features.tables.customer_features.entity names", "transaction_id.unique must be true"):
        assert field in raised.value.message


@pytest.mark.parametrize("name", ["score", "features", "role", "replica", "day", "decision", "Score", "order", "row"])
def test_names_of_the_prediction_log_and_of_sql_are_free_for_event_columns(files: Files, name: str) -> None:
    files.source["feeds"]["events"]["columns"][name] = {"type": "float64"}
    assert name in files.load().request_columns


def test_both_feeds_may_have_columns_of_one_name(files: Files) -> None:
    for feed, columns in {
        "events": {"reported_at": {**TIME, "nullable": True}, "is_fraud": {**INT, "nullable": True}},
        "labels": {"customer_id": INT},
    }.items():
        files.source["feeds"][feed]["columns"] |= columns
    assert files.load().label_spec.feed == "labels"


@pytest.mark.parametrize(
    "label",
    [{"type": "bool"}, {**INT, "values": [0, 1]}, {**INT, "minimum": 0, "maximum": 1}],
)
def test_a_label_is_zero_or_one_or_a_boolean(files: Files, label: dict) -> None:
    files.source["feeds"]["labels"]["columns"]["is_fraud"] = label
    files.load()


@pytest.mark.parametrize(
    "label", [{**INT, "values": [1]}, {**INT, "minimum": 1, "maximum": 1}, {"type": "bool", "values": [True]}]
)
def test_a_feed_may_name_positives_only_if_silence_is_negative(files: Files, label: dict) -> None:
    files.source["feeds"]["labels"]["columns"]["is_fraud"] = label
    files.source["labels"]["is_fraud"]["unlabelled_after_delay"] = "negative"
    files.load()


def test_values_and_bounds_keep_their_types(files: Files) -> None:
    columns = files.source["feeds"]["events"]["columns"]
    columns["country"] = {"type": "string", "values": ["NO", "SE"]}
    columns["channel"] = {"type": "int64", "values": [0, 1], "minimum": 0}
    columns["big"] = {"type": "int64", "maximum": 2**53 + 1}
    columns["rate"] = {"type": "float64", "values": [0, 0.5]}
    columns["chip"] = {"type": "bool", "values": [True]}
    found = files.load().request_columns
    assert found["country"].values == ("NO", "SE")
    assert [type(value) for value in found["channel"].values or ()] == [int, int]
    assert found["big"].maximum == 2**53 + 1
    assert found["rate"].values == (0, 0.5)
    assert found["chip"].values == (True,)


TEXT = (MODELS_DIR / "card_fraud.yaml").read_text()
SOURCE_TEXT = (SOURCES_DIR / "card_payments.yaml").read_text()


#: Each line repeats the one before nine times.
LAUGHS = "a: &a [x, x]\n" + "".join(f"{c}: &{c} [{', '.join([f'*{b}'] * 9)}]\n" for b, c in pairwise("abcdefgh"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- name: card_fraud\n", "holds a list instead of fields"),
        ("card_fraud\n", "holds only 'card_fraud' instead of fields"),
        (TEXT + "owner: someone\n", "the key 'owner' is already on line 4"),
        (TEXT.replace("limits: {roc_auc: 0.7", "limits: {roc_auc: 0.7, roc_auc: 0.8"), "the key 'roc_auc' is already"),
        (TEXT.replace("  k: 100", "  k: 100\n  k: 200"), "the key 'k' is already on line"),
        (TEXT.replace("    mlp:", "    on:"), "the key on (read as true or false) is not text"),
        (TEXT.replace("    mlp:", "    12:"), "the key 12 is not text"),
        (TEXT.replace("    mlp:", "    ? [a, b]\n    :"), "the key in brackets is not text"),
        (TEXT.replace("  k: 100", "\tk: 100"), "is not valid YAML"),
        (TEXT.replace("  k: 100", "  k: *nowhere"), "is not valid YAML"),
        (TEXT.replace("  k: 100", "  k: !!python/name:os.system"), "is not valid YAML"),
        (TEXT + "---\nname: second\n", "is not valid YAML"),
        ("a: &a [*a]\n", "line 1: the value contains itself"),
        (TEXT.replace("    mlp:", "    random_forest: &x {a: *x}\n    mlp:"), "the value contains itself"),
        (TEXT.replace("  k: 100", "  k: !!bool maybe"), "has a value that does not suit its tag"),
        (TEXT.replace("  k: 100", "  k: !!int abc"), "abc would be read as another number"),
        (TEXT.replace("  k: 100", "  k: 010"), "010 would be read as another number"),
        (TEXT.replace("  k: 100", "  k: 1:30"), "1:30 would be read as another number"),
        (TEXT.replace("  k: 100", "  k: " + "1" * 5000), "the number 1111111111… has 5000 digits"),
        (TEXT + "deep: " + "[" * 50_000, "has more than 100 levels"),
        (TEXT + "deep:\n" + "- " * 50_000, "has more than 100 levels"),
        (LAUGHS, "its anchors and aliases make more than 1,000,000 values"),
    ],
)
def test_a_file_that_yaml_takes_and_nobody_means_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "card_fraud.yaml").write_text(content)
    with pytest.raises(ConfigError) as raised:
        load_model_spec("card_fraud", tmp_path)
    assert complaint in raised.value.message
    assert "card_fraud.yaml" in raised.value.message


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "card_fraud.yaml").write_bytes(TEXT.replace("Card fraud", "Carte frauduleuse é").encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_model_spec("card_fraud", tmp_path)


def test_anchors_merge_keys_dates_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    text = SOURCE_TEXT.replace("customer_id: {type: int64,", "customer_id: &id {type: int64,")
    text = text.replace("terminal_id: {type: int64, minimum: 0, description:", "terminal_id: {<<: *id, description:")
    text = text.replace("title: Card payments", "title: 2026-01-05")
    (tmp_path / "card_payments.yaml").write_text(text, encoding="utf-8-sig")
    spec = load_source_spec("card_payments", tmp_path)
    assert spec.request_columns["terminal_id"].minimum == 0
    assert spec.title == "2026-01-05"


@pytest.mark.parametrize("name", ["Card", "card-fraud", "1card", "card fraud"])
def test_a_file_whose_name_is_no_models_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.yaml").write_text(TEXT)
    with pytest.raises(ConfigError, match="is not a name for a model"):
        load_model_spec(name, tmp_path)


def test_a_feature_that_may_know_the_label_must_be_one_of_those_listed(files: Files) -> None:
    files.set("features", ["payment_amount", "customer_count_7d"])
    files.set("evaluation.leakage", {"expected": ["payment_amont"]})
    with pytest.raises(ConfigError, match=r"leakage\.expected names 'payment_amont', which is not") as raised:
        files.load()
    assert "Did you mean 'payment_amount'?" in raised.value.hint
    files.set("evaluation.leakage", {"expected": ["payment_amount"]})
    assert files.load().evaluation.leakage.expected == ("payment_amount",)


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("alway", "is 'alway', neither always, never nor a list"),
        (["lekage"], "names 'lekage', which is not a condition"),
        ([{"small_gain": -1}], "small_gain"),
    ],
)
def test_a_condition_of_an_approval_that_does_not_exist_is_named(files: Files, when: Any, said: str) -> None:
    files.set("approval.when", when)
    with pytest.raises(ConfigError) as error:
        files.load()
    assert said in error.value.message
    assert "literal[" not in error.value.message
    if isinstance(when, list) and when == ["lekage"]:
        assert "Did you mean 'leakage'?" in error.value.hint


def test_the_short_forms_of_an_approval(files: Files) -> None:
    assert files.load().approval.when == ("leakage",)
    for short, conditions in (("always", ("positive_verdict",)), ("never", ())):
        files.set("approval", short)
        assert files.load().approval.when == conditions
        files.set("approval", {"when": short})
        assert files.load().approval.when == conditions


def test_a_number_that_yaml_reads_as_text_says_how_to_write_it(files: Files) -> None:
    files.set("feeds.events.columns.amount.maximum", "1e6")
    with pytest.raises(ConfigError) as raised:
        files.load()
    assert "YAML reads 1e6 as text: write 1.0e+6" in raised.value.hint
    files.set("feeds.events.columns.amount.maximum", 1.0e6)
    files.set("monitoring.minimum_shift", "1e-3")
    with pytest.raises(ConfigError) as raised:
        files.load()
    assert "YAML reads 1e6 as text" in raised.value.hint


@pytest.mark.parametrize("count", others_in_ci([10_000, 40_000]))
def test_a_long_list_of_values_is_read_soon_and_named_in_short(files: Files, count: int) -> None:
    """Comparing each of 40,000 with each other one would take a minute."""
    values = [f"v{n}" for n in range(count)]
    files.set("feeds.events.columns.channel", {"type": "string", "values": values})
    assert len(files.load().request_columns["channel"].values or ()) == count
    assert listed(values).endswith(f"v49, … ({count:,} values)")
    files.source["features"]["event_columns"] = ["channel"]
    with pytest.raises(ConfigError, match=f"names 'channel', whose {count:,} values are too many to be categories"):
        files.load()
    del files.source["features"]["event_columns"]
    files.set("evaluation.slices", {"columns": {"channel": {"values": values}}})
    files.set("feeds.events.columns.channel", {"type": "string", "values": [*values, "v7"]})
    with pytest.raises(ConfigError, match="holds v7 more than once"):
        files.load()
