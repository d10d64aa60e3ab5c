"""What every room's tests share: settings in a folder of their own, and the reference model's spec."""

import os
from pathlib import Path

import pytest

from training.contract.model_spec import ModelSpec, load_model_spec
from training.settings import Settings

pytest_plugins = ["tests.airflow_home"]

# As in the runner: threads that wait by spinning slow a shared machine tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Everything under a temporary folder; MLflow as an SQLite file instead of a server."""
    return Settings(home=tmp_path / "home", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def spec() -> ModelSpec:
    return load_model_spec("card_fraud")
