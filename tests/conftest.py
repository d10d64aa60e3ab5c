"""What every room's tests share: settings in a folder of their own, the reference model, slow things made once."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer

from testing.compat.mlflow import find_newest_migration_once, share_compiled_statements
from testing.files_per_worker import FilesPerWorker
from testing.spark_server import lacking, spark_server
from tests.shared_folders import SharedFolders
from training.contract.model_spec import ModelSpec, load_model_spec
from training.settings import Settings

pytest_plugins = ["tests.airflow_fixtures"]

# As in the runner: threads that wait by spinning slow a shared machine tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


#: File → the slow session fixture that it shares with others. They run in one worker process, which makes it once.
SHARED_FIXTURES = {
    "tests/dags/test_score_run.py": "step_server",
    "tests/dags/test_backfill_run.py": "step_server",
    "tests/dags/test_train_run.py": "step_server",
    "tests/plugins/test_forkserver.py": "step_server",
    "tests/plugins/test_operators.py": "step_server",
    "tests/plugins/test_try_again.py": "step_server",
    "tests/adapters/test_feature_engines.py": "spark_url",
    "tests/adapters/test_point_in_time_join.py": "spark_url",
    "tests/adapters/test_samples.py": "spark_url",
    "tests/adapters/test_spark.py": "spark_url",
    "tests/adapters/test_spark_sql.py": "spark_url",
    "tests/steps/test_ingest_spark.py": "spark_url",
    "tests/steps/test_score_odd_data.py": "spark_url",
    "tests/steps/test_score_spark.py": "spark_url",
    "tests/steps/test_audit.py": "monitored_model",
    "tests/steps/test_batch_monitoring.py": "monitored_model",
    "tests/steps/test_clean.py": "monitored_model",
    "tests/steps/test_drift.py": "monitored_model",
    "tests/steps/test_evidence_page.py": "monitored_model",
    "tests/steps/test_forget.py": "monitored_model",
    "tests/steps/test_performance.py": "monitored_model",
    "tests/steps/test_reproduce.py": "monitored_model",
    "tests/steps/test_snapshot.py": "monitored_model",
}


#: The folders with the tests that take longest, and files that wait for half a minute.
COSTLY = (
    "tests/steps/",
    "tests/serving/",
    "tests/local/test_stack.py",
    "tests/plugins/test_pods.py",
    "tests/storage/test_object_store.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first: begun last, it would keep one worker process busy and the others idle."""

    def place(item: pytest.Item) -> tuple[bool, bool, bool, bool]:
        file = item.nodeid.partition("::")[0]
        waits = item.get_closest_marker("airflow") is not None
        return not file.startswith("tests/e2e/"), file not in SHARED_FIXTURES, not waits, not file.startswith(COSTLY)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Airflow, MLflow and pytest's own tests are millions of objects that stay. The garbage collector looked through
    them again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> None:
    """Fail a file that makes a shared fixture and is not in SHARED_FIXTURES: another worker would make it once more."""
    name, file = fixturedef.argname, os.environ["PYTEST_CURRENT_TEST"].partition("::")[0]
    if name in SHARED_FIXTURES.values() and SHARED_FIXTURES.get(file) != name:
        pytest.fail(f"Add {file} to SHARED_FIXTURES in tests/conftest.py: it uses {name}", pytrace=False)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FilesPerWorker:
    # `--dist loadgroup` does not work: pytest-xdist 3.8 puts the group into a private field that pytest 9.2 ignores.
    return FilesPerWorker(config, log, SHARED_FIXTURES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Three more than the cores: many tests wait for what they start. With two more, two cores were busy for 85 % of
    the time, and `make test` took 6:12; with three more for 94 %, and it took 5:51."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else (os.cpu_count() or 1) + 3


@pytest.fixture(scope="session")
def shared_folders(tmp_path_factory: pytest.TempPathFactory) -> SharedFolders:
    base = tmp_path_factory.getbasetemp()
    # Under pytest-xdist each worker process has a folder of its own in that of the whole run.
    return SharedFolders((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-folders")


@pytest.fixture(scope="session")
def mlflow_database(shared_folders: SharedFolders) -> Path:
    """An MLflow database with its tables and nothing else. Copy it: making one takes 1.5 s of CPU, copying none."""
    find_newest_migration_once()
    share_compiled_statements()

    def migrate(folder: Path) -> None:
        from mlflow import MlflowClient

        uri = f"sqlite:///{folder}/mlflow.db"
        MlflowClient(uri, uri).search_experiments()

    return shared_folders.folder("mlflow-database", migrate) / "mlflow.db"


@pytest.fixture(scope="session")
def spark_url() -> Iterator[str]:
    """A Spark Connect server on this machine, or the one that PERENNIAL_TEST_SPARK names.

    It starts with the first test that asks for it.
    """
    from training.spark_session import connect

    if running := os.environ.get("PERENNIAL_TEST_SPARK"):
        yield running
        return
    if (reason := lacking()) is not None:
        pytest.skip(f"Spark {reason}")
    # Short queries: compiling them well takes longer than running them.
    quick = {"spark.sql.shuffle.partitions": "2", "spark.sql.codegen.wholeStage": "false"}
    with spark_server(java_options="-XX:+UseSerialGC -XX:TieredStopAtLevel=1", configuration=quick) as url:
        yield url
        connect(url).session.stop()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Everything under a temporary folder; MLflow as an SQLite file instead of a server."""
    return Settings(home=tmp_path / "home", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def spec() -> ModelSpec:
    return load_model_spec("card_fraud")
