"""The features that need the payment itself, and Feast's own command over the folder."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.feature_repo.payments_and_features import request_features
from training.adapters.features import OnlineRows
from training.adapters.features.definitions import load_definitions
from training.contract.model_spec import ModelSpec
from training.settings import ROOT, Settings

FOLDER = ROOT / "feature_repo"


def made(spec: ModelSpec, frame: pd.DataFrame) -> pd.DataFrame:
    (view,) = load_definitions(FOLDER, spec.source).on_demand
    return view.feature_transformation.udf(frame)


def test_they_are_as_defined(spec: ModelSpec) -> None:
    rng = np.random.default_rng(0)
    n = 500
    seconds = rng.integers(0, 14 * 86_400, n)
    edges = pd.to_datetime(
        ["2026-01-03T00:00", "2026-01-04T23:59:59.999999", "2026-01-05T06:59:59", "2026-01-05T07:00"], format="ISO8601"
    )
    times = pd.DatetimeIndex([*(pd.Timestamp("2026-01-01") + pd.to_timedelta(seconds, unit="s")), *edges], tz="UTC")
    frame = pd.DataFrame({"event_time": times.as_unit("us"), "amount": rng.random(n + 4) * 100})
    for window in ("7d", "30d"):
        frame[f"customer_mean_{window}"] = (rng.random(n + 4) * 50).astype(np.float32)
    wanted = pd.DataFrame([request_features(row, row.to_dict()) for _, row in frame.iterrows()])
    found = made(spec, frame)
    assert set(found.dtypes) == {np.dtype(np.float32)}
    np.testing.assert_allclose(found[wanted.columns], wanted, rtol=1e-6)
    assert 0 < found["weekend"].mean() < 1
    assert 0 < found["night"].mean() < 1


@pytest.mark.parametrize("mean", [0.0, np.nan])
def test_without_a_mean_the_amount_is_as_usual(spec: ModelSpec, mean: float) -> None:
    time = pd.DatetimeIndex(["2026-01-05T12:00Z"])
    frame = pd.DataFrame({"event_time": time, "amount": [12.5], "customer_mean_7d": mean, "customer_mean_30d": 5.0})
    found = made(spec, frame)
    assert found["amount_over_mean_7d"].tolist() == [1.0]
    assert found["amount_over_mean_30d"].tolist() == [2.5]


@pytest.mark.long
def test_feasts_own_command_reads_what_was_published(settings: Settings, spec: ModelSpec) -> None:
    OnlineRows(settings, spec.source).publish()
    environment = {"PATH": os.environ["PATH"], "CT_HOME": str(settings.home), "HOME": str(settings.home)}
    command = [str(Path(sys.executable).parent / "feast"), "feature-services", "list"]
    done = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "card_fraud" in done.stdout
