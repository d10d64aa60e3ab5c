"""For the tests of dags/ and plugins/: an Airflow home of its own, chosen before anything imports Airflow."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_HOME = Path(tempfile.mkdtemp(prefix="perennial-airflow-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
(_HOME / "no-dags").mkdir()
# Set, whatever is there: a worker process of pytest-xdist inherits the home of the process that started it.
os.environ["AIRFLOW_HOME"] = str(_HOME)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# `dag.test()` loads the whole DAGs folder each time.
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(_HOME / "no-dags")
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{_HOME}/airflow.db"


@pytest.fixture(scope="session")
def airflow_database() -> None:
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture
def step_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `CT_*` environment of tasks and the steps that they start: everything under a temporary folder."""
    monkeypatch.setenv("CT_HOME", str(tmp_path / "home"))
    # Nobody listens there, and MLflow's client is to say so at once.
    monkeypatch.setenv("CT_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return tmp_path / "home"
