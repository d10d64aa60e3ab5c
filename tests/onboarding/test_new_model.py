"""The spec that `make new-model` writes from a source and its rows."""

import json
from datetime import UTC, date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from serving.schema import RequestSchema
from tests.onboarding.samples import sales, write
from training.contract.errors import InputError
from training.contract.model_spec import ModelSpec, load_model_spec
from training.onboarding.new_model import ModelWishes, new_model
from training.onboarding.new_source import SourceWishes, new_source
from training.settings import Settings

LABELS = "returned,rating,refund"


@pytest.fixture
def sample(here: Settings, tmp_path: Path) -> Path:
    """The sample of the source `shops`, which has three labels."""
    path = write(tmp_path, sales())
    new_source(SourceWishes(name="shops", data=path, labels=LABELS), here)
    return path


def made(here: Settings, sample: Path | None, **wishes: Any) -> tuple[ModelSpec, str]:
    found = new_model(ModelWishes(**{"name": "returns", "source": "shops", "data": sample, **wishes}), here)
    return load_model_spec("returns", here.models_dir, here.feature_repo), found.text


@pytest.mark.parametrize(
    ("label", "kind", "why"),
    [
        ("returned", "binary", "the label is 0 or 1"),
        ("rating", "multiclass", "the label is a text"),
        ("refund", "regression", "the label is a number"),
    ],
)
def test_the_task_follows_from_the_label(here: Settings, sample: Path, label: str, kind: str, why: str) -> None:
    spec, text = made(here, sample, label=label)
    assert spec.task.kind == kind
    assert why in text


def test_a_person_chooses_another_task_that_the_label_suits(here: Settings, sample: Path) -> None:
    spec, _ = made(here, sample, label="returned", task="multiclass")
    assert spec.task.kind == "multiclass"


@pytest.mark.parametrize(("label", "value"), [("rating", "bad"), ("returned", 0)])
def test_rows_of_one_class_teach_nothing(
    here: Settings, sample: Path, tmp_path: Path, label: str, value: str | int
) -> None:
    rows = write(tmp_path, sales() | {label: [value] * len(sales()["price"])}, "one.parquet")
    with pytest.raises(InputError, match=f"{label} is {value!r} in all 2,400 rows"):
        made(here, rows, label=label)


@pytest.mark.parametrize("size", [5e-324, 1e300])
def test_numbers_whose_spread_no_float_holds_give_no_limit(
    here: Settings, sample: Path, tmp_path: Path, size: float
) -> None:
    rows = write(tmp_path, sales() | {"refund": np.arange(len(sales()["price"])) % 2 * size}, "odd.parquet")
    _, text = made(here, rows, label="refund")
    assert "no limit yet" in text


def test_windows_rows_and_limits_fit_the_sample(here: Settings, sample: Path) -> None:
    spec, text = made(here, sample, label="returned")
    share = float(np.mean(sales()["returned"]))
    # 40 days of 60 rows.
    assert spec.training.window_days + spec.training.holdout_days <= 40
    assert spec.training.minimum_rows < 60 * spec.training.window_days
    assert spec.evaluation.limits["average_precision"] == pytest.approx(share, abs=0.01)
    assert spec.task.alert_rate == pytest.approx(share, abs=0.01)
    assert spec.evaluation.entity == "shop"
    assert not spec.evaluation.exclude_known_entities
    assert 60 * spec.monitoring.window_days > spec.monitoring.minimum_rows
    assert "The sample has 40 days" in text


def test_the_limit_of_a_regression_is_a_little_above_the_spread_of_its_labels(here: Settings, sample: Path) -> None:
    spec, _ = made(here, sample, label="refund")
    spread = float(np.std(sales()["refund"]))
    assert spread < spec.evaluation.limits["rmse"] < 1.5 * spread


def test_without_rows_it_says_that_the_numbers_are_defaults(here: Settings, sample: Path) -> None:
    spec, text = made(here, None, label="rating")
    # A comment may go on in the next line.
    assert "mere defaults" in " ".join(text.replace("#", "").split())
    assert spec.task.kind == "multiclass"


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({}, "has 3 labels"),
        ({"label": "wrong"}, "no label 'wrong'"),
        ({"label": "rating", "task": "binary"}, "does not suit the task binary"),
        ({"label": "rating", "task": "regression"}, "does not suit the task regression"),
        ({"label": "refund", "task": "multiclass"}, "does not suit the task multiclass"),
        ({"label": "returned", "task": "guess"}, "is not a task"),
        ({"label": "returned", "name": "A model"}, "not a name for a model"),
    ],
)
def test_a_model_that_cannot_be_has_one_clear_error(
    here: Settings, sample: Path, wishes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said) as error:
        made(here, sample, **wishes)
    assert error.value.hint
    assert list(here.models_dir.iterdir()) == []


def test_the_newest_event_a_day_later_is_an_example_that_the_service_reads(here: Settings, tmp_path: Path) -> None:
    columns = sales()
    rows = len(columns["price"])
    columns |= {
        "paid": pa.array([Decimal("1.25"), None] * (rows // 2), pa.decimal128(9, 2)),
        "opened": [date(2025, 1, 1)] * rows,
        "place": [[1.5, 2.5]] * rows,
    }
    path = write(tmp_path, columns)
    new_source(SourceWishes(name="shops", data=path, labels="refund"), here)
    found = new_model(ModelWishes(name="returns", source="shops", data=path), here)
    spec = load_model_spec("returns", here.models_dir, here.feature_repo)
    row = RequestSchema(spec).one(json.dumps(found.example).encode())
    assert row["sale_id"] == columns["sale_id"][-1]
    # When all rows have landed, the online features are those of the day after the newest event.
    assert row["sold_at"] == columns["sold_at"][-1].replace(tzinfo=UTC) + timedelta(days=1)
    assert "refund" not in found.example


def test_nothing_is_overwritten(here: Settings, sample: Path) -> None:
    _, text = made(here, sample, label="returned")
    with pytest.raises(InputError, match="exists already"):
        made(here, sample, label="rating")
    assert (here.models_dir / "returns.yaml").read_text() == text
