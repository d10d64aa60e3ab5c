"""card_fraud, flight_delay and flight_outcome in one stack at the same time, served by one prediction service."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.airflow_api import Airflow
from local.credentials import USER
from local.place import Place, Ports
from local.stack import Stack
from testing.ports import free_ports
from testing.reference_models import SOURCES, Data, all_serve, champions, check_metrics, check_predictions, write_specs
from training.adapters.lake import PREDICTIONS, Lake

pytestmark = [pytest.mark.airflow, pytest.mark.long, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]


class Local:
    """`python -m local <verb>` for a stack of its own, on free ports, with small specs."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder / "home", folder / "landing", Ports(*free_ports(3)))
        ports = {f"{name.upper()}_PORT": str(port) for name, port in asdict(self.place.ports).items()}
        place = {"CT_HOME": str(self.place.home), "CT_LANDING_URI": str(self.place.landing)}
        self._env = os.environ | ports | place | {"CT_MODELS_DIR": str(write_specs(folder / "models"))}

    def __call__(self, verb: str) -> str:
        """What it prints. Its exit code is not judged: a loaded machine's programs may look unhealthy for a moment."""
        done = subprocess.run(
            [sys.executable, "-m", "local", verb], env=self._env, cwd=ROOT, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    def until(self, true: Callable[[], Any], what: str, seconds: float) -> None:
        """Wait until `true`. Raises AssertionError after `seconds`, or when a run of a model or source has failed."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"waited in vain for {what}: {champions(self.place.serving_url)}"
            for model in SOURCES:
                with self.airflow(model) as airflow:
                    failed = [
                        run.id
                        for kind in ("data", "train", "monitor")
                        for run in airflow.runs(kind)
                        if run.state == "failed"
                    ]
                assert failed == [], f"{model}: {failed}"
            time.sleep(1)

    def airflow(self, model: str) -> Airflow:
        password = Stack(self.place).credentials.password
        return Airflow(self.place.airflow_url, USER, password, SOURCES[model], model)

    def compared(self, model: str) -> bool:
        """Whether the newest finished monitoring run of `model` has measured drift and performance of version 1."""
        with self.airflow(model) as airflow:
            ended = [run for run in airflow.runs("monitor") if run.state == "success"]
            found = [airflow.result(ended[-1], step) or {} for step in ("drift", "performance")] if ended else [{}]
        return all(result.get("outcome") == "measured" for result in found)

    def logged(self) -> dict[str, int]:
        """Model → the rows of its table of predictions."""
        lakes = {model: Lake(str(self.place.home / "lake"), source, model) for model, source in SOURCES.items()}
        return {
            model: lake.scan(PREDICTIONS).count_rows()
            for model, lake in lakes.items()
            if lake.version(PREDICTIONS) is not None
        }


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    made = Local(tmp_path)
    yield made
    Stack(made.place).stop()


def test_three_models_are_trained_served_and_monitored_in_one_stack(local: Local) -> None:
    data, url = Data(), local.place.serving_url
    data.land_history(local.place.landing)
    # On a loaded machine a program may take longer than `up` waits; the next `up` goes on from there.
    assert any("The stack is up" in local("up") for _ in range(4))
    local.until(lambda: all_serve(url), "the three champions", 900)
    status = local("status")
    for model in SOURCES:
        assert f"  {model:<22} version 1 serves" in status, status
    answered = check_predictions(url, data)
    check_metrics(httpx.get(f"{url}/metrics").text)
    local.until(lambda: local.logged() == answered, "the predictions in the lake", 60)

    data.land_flights(local.place.landing)
    local.until(lambda: local.compared("flight_delay") and local.compared("flight_outcome"), "the monitors", 600)
    assert champions(url).keys() == SOURCES.keys()
