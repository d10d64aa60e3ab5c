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
        ("training.windowdays", 14, "training.windowdays: Extra inputs are not permitted"),
        ("training.estimators", {}, "training.estimators: Dictionary should have at least 1 item"),
        ("training.estimators", {"xgboost": {}}, "training.estimators.xgboost"),
        ("owner", None, "owner: Input should be a valid string"),
        ("label.column", "fraud", "label.column names 'fraud', which is not one of the columns"),
        ("label.id_column", "payment_id", "label.id_column names 'payment_id'"),
        ("evaluation.entity", "card_id", "evaluation.entity names 'card_id'"),
        ("features.tables", {"customer_features": "customer"}, "features.tables.customer_features names 'customer'"),
        ("feeds.events.time_column", "amount", "time_column 'amount' must be a column of type timestamp"),
        ("evaluation.floors", {"roc_auc": 0.5}, "evaluation.floors must hold a floor for the primary metric"),
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
