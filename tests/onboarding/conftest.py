"""Settings with folders of specs of their own, so that a test writes nothing into the repository."""

import shutil
from pathlib import Path

import pytest

from training.contract.source_spec import SOURCES_DIR
from training.settings import Settings


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    """The sources of the repository and no models; everything under `tmp_path`."""
    return in_folder(tmp_path)


def in_folder(folder: Path) -> Settings:
    """As `here`, in `folder`."""
    shutil.copytree(SOURCES_DIR, folder / "repo", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "models").mkdir()
    return Settings(
        home=folder / "home",
        models_dir=folder / "models",
        feature_repo=folder / "repo",
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
    )
