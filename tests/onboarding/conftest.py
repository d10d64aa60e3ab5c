"""Settings with folders of specs of their own, so that a test writes nothing into the repository."""

import shutil
from pathlib import Path

import pytest

from training.contract.source_spec import SOURCES_DIR
from training.settings import Settings


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    """The sources of the repository and no models; everything under `tmp_path`."""
    shutil.copytree(SOURCES_DIR, tmp_path / "repo", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "models").mkdir()
    return Settings(
        home=tmp_path / "home",
        models_dir=tmp_path / "models",
        feature_repo=tmp_path / "repo",
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )
