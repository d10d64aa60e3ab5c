"""Steps in the training image on the Spark server of the profile `spark`. Airflow, Redis and MLflow do not run."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from local.generator import land
from testing.loop_steps import HISTORY, MODEL, SOURCE, small_generator
from tests.compose.composed_stack import Composed
from training.contract.base import Days
from training.settings import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1500)]


class SparkStack(Composed):
    """The services `spark` and `steps`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ROOT / "training" / "models", CT_ENGINE="spark")
        self.log = ""

    def __call__(self, *arguments: str) -> str:
        return super().__call__("--profile", "*", *arguments)

    def step(self, name: str, **inputs: Any) -> dict[str, Any]:
        """The result of a step that runs in a container of the service `steps`. `log` becomes its output."""
        given = ["--inputs", json.dumps(inputs), "--result", "/tmp/result.json"]
        # MLflow's database is a file of the state, and so is the online store.
        changes = ["CT_TRACKING_URI=sqlite:////var/lib/perennial/mlflow.db", "CT_ONLINE_STORE="]
        options = [part for each in changes for part in ("--env", each)]
        # The report goes to the standard output after the log.
        script = 'python -m training "$@" 2>&1; code=$?; echo; tr -d "\\n" < /tmp/result.json; exit $code'
        run = ["run", "--rm", "--no-deps", "-T", *options, "--entrypoint", "sh", "steps", "-c", script, "--", name]
        self.log, _, report = self(*run, *given).rstrip("\n").rpartition("\n")
        result: dict[str, Any] = json.loads(report)["result"]
        return result


@pytest.fixture
def stack(images: dict[str, str], tmp_path: Path) -> Iterator[SparkStack]:
    if "spark" not in images:
        pytest.skip("EXTRAS=spark is not set: the images have no Spark")
    composed = SparkStack(tmp_path)
    yield composed
    composed("down", "--volumes", "--timeout", "5")


def test_spark_checks_rows_computes_features_and_joins_them(stack: SparkStack) -> None:
    stack("up", "--detach", "--no-build", "--no-deps", "spark")
    stack.until(lambda: stack.health().get("spark") == "healthy", "Spark", 300)
    versions: dict[str, int] = {}
    for feed, delay in (("events", timedelta()), ("labels", timedelta(days=7))):
        days = Days(start=HISTORY.start + delay, end=HISTORY.end)
        path = land(small_generator(), stack.landing, SOURCE, feed, days)
        uri = f"/landing/{path.relative_to(stack.landing)}"
        taken = stack.step("ingest", source=SOURCE, feed=feed, partition=path.stem, uri=uri)
        versions |= taken["table_versions"]
        # Its Python workers read the landed file: no share was left to the step.
        assert "spark checked 1 of 1 parts of the rows" in stack.log
        assert "WARNING" not in stack.log
    # Java reads the compressed Parquet files of the lake, for which it must load libraries of its own.
    whole = {"start": str(HISTORY.start), "end": str(HISTORY.end + timedelta(days=1))}
    computed = stack.step("features", source=SOURCE, days=whole, table_versions=versions)
    assert "Spark 4.1" in stack.log
    assert min(computed["rows"].values()) > 10_000
    made = stack.step("dataset", model=MODEL, as_of=str(HISTORY.end))
    assert "Spark 4.1" in stack.log
    assert made["train"]["rows"] > 1000
