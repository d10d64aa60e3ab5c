"""The model spec: what is wrong is named, what is right is hashed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from training.contract.errors import ConfigError
from training.contract.model_spec import MODELS_DIR, ModelSpec, load_model_spec, model_names


@pytest.fixture
def source() -> dict[str, Any]:
    return yaml.safe_load((MODELS_DIR / "card_fraud.yaml").read_text())


def _load(folder: Path, source: dict[str, Any], name: str = "card_fraud") -> ModelSpec:
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(source))
    return load_model_spec(name, folder)


def _set(source: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        source = source[key]
    source[last] = value


@pytest.mark.parametrize("name", model_names())
def test_every_model_here_has_a_valid_spec(name: str) -> None:
    assert load_model_spec(name).name == name


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("training.window_days", 0, "training.window_days: Input should be greater than or equal to 1"),
        ("training.windowdays", 14, "training.windowdays: There is no such field"),
        ("training.estimators", {}, "training.estimators: Dictionary should have at least 1 item"),
        ("training.estimators", {"catboost": {}}, "training.estimators.catboost: There is no such name. It should be"),
        ("owner", None, "owner: Input should be a valid string"),
        ("label.column", "fraud", "label.column names 'fraud', which is not one of the columns"),
        ("label.id_column", "payment_id", "label.id_column names 'payment_id'"),
        ("evaluation.entity", "card_id", "evaluation.entity names 'card_id'"),
        ("features.tables", {"customer_features": "customer"}, "features.tables.customer_features names 'customer'"),
        ("feeds.events.time_column", "amount", "time_column 'amount' must be a column of type timestamp"),
        ("evaluation.limits", {"roc_auc": 0.5}, "evaluation.limits must have a limit for the primary metric"),
        ("drift.maximum_drifted_share", 1.5, "drift.maximum_drifted_share: Input should be less than or equal to 1"),
        ("name", "Card Fraud", "name: String should match pattern"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, source: dict, path: str, value: Any, complaint: str) -> None:
    _set(source, path, value)
    with pytest.raises(ConfigError) as raised:
        _load(tmp_path, source)
    assert complaint in raised.value.message
    assert str(tmp_path / "card_fraud.yaml") in raised.value.message


def test_a_missing_feed_is_named(tmp_path: Path, source: dict) -> None:
    del source["feeds"]["labels"]
    with pytest.raises(ConfigError, match="feeds must be exactly events and labels"):
        _load(tmp_path, source)


def test_a_spec_lies_in_the_file_of_its_name(tmp_path: Path, source: dict) -> None:
    with pytest.raises(ConfigError, match="holds the spec of 'card_fraud'"):
        _load(tmp_path, source, "churn")


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("name: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not valid YAML"):
        load_model_spec("broken", tmp_path)


@pytest.mark.parametrize("name", ["unknown", "../card_fraud", "card_fraud.yaml", ""])
def test_an_unknown_model_names_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="No spec for model") as raised:
        load_model_spec(name)
    assert "card_fraud" in raised.value.hint


def test_the_hash_follows_the_policy_and_nothing_else(tmp_path: Path, source: dict) -> None:
    original = _load(tmp_path, source).config_hash
    assert _load(tmp_path, dict(reversed(source.items()))).config_hash == original
    _set(source, "training.window_days", 21)
    assert _load(tmp_path, source).config_hash != original


def _column(path: str, **fields: Any) -> tuple[str, Any]:
    return f"feeds.events.columns.{path}", fields


INT = {"type": "int64"}
TIME = {"type": "timestamp"}
LABEL = "feeds.labels.columns.is_fraud"

CONTRADICTIONS: list[tuple[str, Any, str]] = [
    # A column's own rules.
    (*_column("x", type="float64", minimum=10, maximum=5), "x.minimum is 10, above the maximum 5"),
    (*_column("x", type="string", minimum=0), "x.minimum is set, but a column of type string has no bounds"),
    (*_column("x", type="bool", maximum=1), "x.maximum is set, but a column of type bool has no bounds"),
    (*_column("x", type="timestamp", minimum=0), "x.minimum is set, but a column of type timestamp has no bounds"),
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
    ("features.tables", {"events": "customer_id"}, "features.tables.events has a reserved name"),
    ("features.tables", {"predictions": "customer_id"}, "features.tables.predictions has a reserved name"),
    # The label.
    (
        LABEL,
        {"type": "string", "values": ["fraud"]},
        "is_fraud.type is string, but the label of a binary task must be an integer (0 or 1) or bool",
    ),
    (LABEL, {"type": "float64"}, "is_fraud.type is float64"),
    (LABEL, {**INT, "values": [0, 1], "nullable": True}, "is_fraud.nullable may be null"),
    (LABEL, INT, "is_fraud.values must limit the label to 0 and 1"),
    (LABEL, {**INT, "values": [1, 2]}, "is_fraud.values must limit the label to 0 and 1"),
    (LABEL, {**INT, "values": [0]}, "is_fraud.values must limit the label to 0 and 1"),
    (LABEL, {**INT, "values": [1]}, "is_fraud.values allows positive labels only"),
    (LABEL, {**INT, "minimum": 1, "maximum": 1}, "is_fraud.minimum allows positive labels only"),
    (LABEL, {"type": "bool", "values": [True]}, "is_fraud.values allows positive labels only"),
    ("label.column", "transaction_id", "label.column is 'transaction_id', and so is label.id_column"),
    ("label.column", "reported_at", "label.column is 'reported_at', and so is feeds.labels.time_column"),
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
        "features.tables",
        {"hours": "event_time"},
        "features.tables.hours names 'event_time', a column of type timestamp",
    ),
    ("rollout.sticky_by", "amount", "rollout.sticky_by names 'amount', a column of type float64"),
    # Windows, gates, guards.
    ("training.window_days", 10**6, "training.window_days: Input should be less than or equal to 36500"),
    ("training.holdout_days", 0, "training.holdout_days"),
    ("training.window_days", "14", "training.window_days: Input should be a valid integer"),
    ("evaluation.k", True, "evaluation.k: Input should be a valid integer (YAML reads unquoted yes"),
    ("title", False, "title: Input should be a valid string (YAML reads unquoted yes"),
    ("features.history_days", 10**9, "features.history_days"),
    ("evaluation.limits", {"average_precision": 1.2}, "evaluation.limits.average_precision is 1.2, but the metric is"),
    ("evaluation.margins", {"roc_auc": -0.1}, "evaluation.margins.roc_auc"),
    ("rollout.guards", {"minimum_alert_ratio": 0.9, "maximum_alert_ratio": 0.5}, "minimum_alert_ratio is 0.9, above"),
    ("rollout.guards", {"maximum_p99_ms": float("inf")}, "rollout.guards.maximum_p99_ms"),
    ("schedule.train", "0 3 * *", "schedule.train is '0 3 * *', which has 4 fields instead of 5"),
    ("schedule.drift", "0 25 * * *", "schedule.drift is '0 25 * * *', which has '25' as its hour"),
]


@pytest.mark.parametrize(("path", "value", "complaint"), CONTRADICTIONS)
def test_a_contradiction_is_refused_and_says_what_to_do(
    tmp_path: Path, source: dict, path: str, value: Any, complaint: str
) -> None:
    section, _, last = path.rpartition(".")
    parent: Any = source
    for key in section.split(".") if section else []:
        parent = parent.setdefault(key, {})
    parent[last] = value
    with pytest.raises(ConfigError) as raised:
        _load(tmp_path, source)
    assert complaint in raised.value.message
    assert raised.value.hint


def test_all_contradictions_are_told_at_once(tmp_path: Path, source: dict) -> None:
    source["label"]["column"] = "transaction_id"
    source["schedule"]["train"] = "weekly"
    source["rollout"]["sticky_by"] = "amount"
    with pytest.raises(ConfigError) as raised:
        _load(tmp_path, source)
    for field in ("label.column is", "schedule.train is", "rollout.sticky_by names"):
        assert field in raised.value.message


@pytest.mark.parametrize("name", ["score", "features", "role", "replica", "day", "decision", "Score", "order", "row"])
def test_names_of_the_prediction_log_and_of_sql_are_free_for_event_columns(
    tmp_path: Path, source: dict, name: str
) -> None:
    source["feeds"]["events"]["columns"][name] = {"type": "float64"}
    assert name in _load(tmp_path, source).request_columns


def test_both_feeds_may_have_columns_of_one_name(tmp_path: Path, source: dict) -> None:
    for feed, columns in {
        "events": {"reported_at": {**TIME, "nullable": True}, "is_fraud": {**INT, "nullable": True}},
        "labels": {"customer_id": INT},
    }.items():
        source["feeds"][feed]["columns"] |= columns
    assert _load(tmp_path, source).label.column == "is_fraud"


@pytest.mark.parametrize(
    "label",
    [{"type": "bool"}, {**INT, "values": [0, 1]}, {**INT, "minimum": 0, "maximum": 1}],
)
def test_a_label_is_zero_or_one_or_a_boolean(tmp_path: Path, source: dict, label: dict) -> None:
    source["feeds"]["labels"]["columns"]["is_fraud"] = label
    _load(tmp_path, source)


@pytest.mark.parametrize(
    "label", [{**INT, "values": [1]}, {**INT, "minimum": 1, "maximum": 1}, {"type": "bool", "values": [True]}]
)
def test_a_feed_may_name_positives_only_if_silence_is_negative(tmp_path: Path, source: dict, label: dict) -> None:
    source["feeds"]["labels"]["columns"]["is_fraud"] = label
    source["label"]["unlabelled_after_delay"] = "negative"
    _load(tmp_path, source)


def test_values_and_bounds_keep_their_types(tmp_path: Path, source: dict) -> None:
    columns = source["feeds"]["events"]["columns"]
    columns["country"] = {"type": "string", "values": ["NO", "SE"]}
    columns["channel"] = {"type": "int64", "values": [0, 1], "minimum": 0}
    columns["big"] = {"type": "int64", "maximum": 2**53 + 1}
    columns["rate"] = {"type": "float64", "values": [0, 0.5]}
    columns["chip"] = {"type": "bool", "values": [True]}
    found = _load(tmp_path, source).request_columns
    assert found["country"].values == ("NO", "SE")
    assert [type(value) for value in found["channel"].values or ()] == [int, int]
    assert found["big"].maximum == 2**53 + 1
    assert found["rate"].values == (0, 0.5)
    assert found["chip"].values == (True,)


TEXT = (MODELS_DIR / "card_fraud.yaml").read_text()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- name: card_fraud\n", "holds a list instead of fields"),
        ("card_fraud\n", "holds only 'card_fraud' instead of fields"),
        (TEXT + "owner: someone\n", "the key 'owner' is already on line 6"),
        (
            TEXT.replace("amount: {type: float64,", "amount: {type: float64, type: int64,"),
            "the key 'type' is already on line",
        ),
        (TEXT.replace("  k: 100", "  k: 100\n  k: 200"), "the key 'k' is already on line"),
        (TEXT.replace("      amount:", "      on:"), "the key on (read as true or false) is not text"),
        (TEXT.replace("      amount:", "      12:"), "the key 12 is not text"),
        (TEXT.replace("      amount:", "      ? [a, b]\n      :"), "the key in brackets is not text"),
        (TEXT.replace("  k: 100", "\tk: 100"), "is not valid YAML"),
        (TEXT.replace("  k: 100", "  k: *nowhere"), "is not valid YAML"),
        (TEXT.replace("  k: 100", "  k: !!python/name:os.system"), "is not valid YAML"),
        (TEXT + "---\nname: second\n", "is not valid YAML"),
        ("a: &a [*a]\n", ""),
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
    text = TEXT.replace("customer_id: {type: int64,", "customer_id: &id {type: int64,")
    text = text.replace("terminal_id: {type: int64, minimum: 0, description:", "terminal_id: {<<: *id, description:")
    text = text.replace("title: Card fraud", "title: 2026-01-05")
    (tmp_path / "card_fraud.yaml").write_text(text, encoding="utf-8-sig")
    spec = load_model_spec("card_fraud", tmp_path)
    assert spec.request_columns["terminal_id"].minimum == 0
    assert spec.title == "2026-01-05"


@pytest.mark.parametrize("name", ["Card", "card-fraud", "1card", "card fraud"])
def test_a_file_whose_name_is_no_models_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.yaml").write_text(TEXT)
    with pytest.raises(ConfigError, match="is not a name for a model"):
        load_model_spec(name, tmp_path)
