"""What was written from a sample runs as it is: it passes the check, the sample is ingested, and models train."""

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from local.land import land
from testing.pipeline import Pipeline
from tests.onboarding.samples import FIRST, sales, write
from training.contract.source_spec import load_source_spec
from training.onboarding.new_model import ModelWishes, new_model
from training.onboarding.new_source import SourceWishes, new_source
from training.onboarding.sample import read_sample
from training.settings import Settings
from training.steps.check import find_model_problems, find_source_problems

TREES = {"max_iter": 30, "max_leaf_nodes": 7}
AS_OF = date(2025, 4, 10)


def odd_sales() -> dict[str, Any]:
    """No id, names that no spec has, a text label, missing values, a word of SQL, and columns that are left out."""
    columns = sales()
    rows = len(columns["price"])
    del columns["sale_id"], columns["rating"]
    columns["Total Price (€)"] = pa.array(columns.pop("price"), mask=np.arange(rows) % 50 == 0)
    columns["order"] = columns.pop("items").astype(np.int8)
    columns["partition"] = columns.pop("channel")
    columns["Was it returned?"] = np.where(columns.pop("returned"), "Yes", "No")
    columns["tags"] = [["a", "b"]] * rows
    columns["nothing"] = pa.nulls(rows)
    columns["country"] = ["CH"] * rows
    columns["sold_at"] = [f"{at:%Y-%m-%d %H:%M:%S}" for at in columns["sold_at"]]
    return columns


@pytest.fixture
def pipeline(here: Settings, tmp_path: Path, mlflow_database: Path) -> Pipeline:
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")
    return Pipeline(here)


def onboard(pipeline: Pipeline, path: Path, labels: str, positive: str = "") -> int:
    """Write the spec of `shops`, check it, land the sample, ingest all of it; returns the events that were kept."""
    settings = pipeline.settings
    new_source(SourceWishes(name="shops", data=path, labels=labels, positive=positive), settings)
    assert [problem for problem in find_source_problems("shops", settings) if problem.sure] == []
    spec = load_source_spec("shops", settings.feature_repo)
    landing = Path(settings.landing)
    files = list(land(landing, spec, {"events": read_sample(path)}, days_per_file=28, positive_text=positive))
    assert len(files) == 5
    kept = 0
    for file in files:
        result = pipeline.step("ingest", source="shops", feed="events", partition=file.stem, uri=str(file))
        assert result.rows_quarantined == 0, result.quarantine_reasons
        kept += result.rows_kept
    pipeline.ingest("shops", files)
    return kept


def judged(pipeline: Pipeline, label: str) -> Any:
    """The verdict on a first model of `label`, whose spec is written from what has landed."""
    settings = pipeline.settings
    new_model(ModelWishes(name="returns", source="shops", label=label), settings)
    assert find_model_problems("returns", settings) == []
    return pipeline.judge("returns", AS_OF, 25, {"hist_gradient_boosting": TREES}).verdict


def test_odd_columns_and_a_text_label_make_a_binary_model(pipeline: Pipeline, tmp_path: Path) -> None:
    path = write(tmp_path, odd_sales())
    assert onboard(pipeline, path, "Was it returned?", positive="Yes") == len(odd_sales()["sold_at"])
    verdict = judged(pipeline, "Was_it_returned")
    # The sample has the refund beside what can be known of a sale: nobody gets one who returns nothing.
    assert verdict.failed == ["leakage"], verdict.reasons
    assert verdict.leakage.suspects == ["refund"]


@pytest.mark.long
def test_a_number_makes_a_regression(pipeline: Pipeline, tmp_path: Path) -> None:
    path = write(tmp_path, sales())
    assert onboard(pipeline, path, "refund") == len(sales()["price"])
    verdict = judged(pipeline, "refund")
    assert verdict.promote, verdict.reasons
    assert FIRST.date() < AS_OF
