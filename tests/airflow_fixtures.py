"""For the tests of dags/ and plugins/: an Airflow home of its own, chosen before anything imports Airflow."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from testing.waiting import listens

ROOT = Path(__file__).parent.parent
#: The files that use `airflow_database` or `step_server` run in one worker process, so that each is made once.
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


@dataclass(frozen=True)
class StepServer:
    """A running training/forkserver.py. Modules in `folder` can be run as steps."""

    process: psutil.Process
    socket: Path
    folder: Path


#: `python -m training.forkserver` without two libraries that take half of its imports. What needs them is left to the
#: steps, as with a module that cannot be imported; no step of a test without a marker does.
#: tests/plugins/test_forkserver.py has a server that loads all.
_LIGHT_SERVER = """
import sys
from training import forkserver
class Left:
    def find_spec(name, *_):
        if name in ("evidently", "torch"):
            raise ModuleNotFoundError(name)
preload = forkserver.preload
def light_preload():
    sys.meta_path.insert(0, Left)
    own = preload()
    sys.meta_path.remove(Left)
    return own
forkserver.preload = light_preload
forkserver.main()
"""


@pytest.fixture(scope="session")
def step_server() -> Iterator[StepServer]:
    """One for all tests of a worker process, because its imports take 8 s of CPU (tests/conftest.py)."""
    # A socket's path is kept short by the kernel; pytest's folders are long.
    with tempfile.TemporaryDirectory(prefix="steps-") as folder:
        path = Path(folder, "steps.sock")
        environment = os.environ | {
            "PYTHONPATH": f"{ROOT}:{folder}",
            "CT_FORKSERVER_SOCKET": "the server's own",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        }
        command = [sys.executable, "-W", "ignore", "-c", _LIGHT_SERVER, "--socket", str(path)]
        with subprocess.Popen(command, env=environment, cwd=ROOT) as process:
            while process.poll() is None and not listens(path):
                time.sleep(0.1)
            yield StepServer(psutil.Process(process.pid), path, Path(folder))
            process.terminate()
            assert process.wait(400) == 0


@pytest.fixture
def step_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `CT_*` environment of tasks and the steps that they start: everything under a temporary folder."""
    monkeypatch.setenv("CT_HOME", str(tmp_path / "home"))
    # Nobody listens there, and MLflow's client is to say so at once.
    monkeypatch.setenv("CT_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return tmp_path / "home"
