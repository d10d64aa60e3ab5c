"""Three models in containers, served by one service, driven through published ports and the landing folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.traffic import Serving, as_json
from testing.reference_models import SOURCES, Data, all_serve, check_metrics, check_predictions, write_specs
from tests.compose.composed_stack import Composed

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1200)]


@pytest.fixture
def stack(images: dict[str, str], tmp_path: Path) -> Iterator[Composed]:
    composed = Composed(tmp_path, write_specs(tmp_path / "models"))
    yield composed
    composed("--profile", "*", "down", "--volumes", "--timeout", "5")


def test_partitions_become_three_champions_and_nothing_is_lost(stack: Composed) -> None:
    stack.up()
    data = Data()
    data.land_history(stack.landing)
    stack.until(lambda: running(stack), "the data run to begin", 120)
    stack("restart", "redis", "postgres", "mlflow")
    stack.until(lambda: all_serve(stack.serving_url), "the three champions", 600)
    check_predictions(stack.serving_url, data)
    check_metrics(httpx.get(f"{stack.management_url}/metrics").text)
    before = {model: predicted(stack, data, model) for model in SOURCES}
    assert not any(answer["features_defaulted"] for answer in before.values())
    runs = {model: delivered(stack, model) for model in SOURCES}
    stack("run", "--rm", "backup")
    stack("run", "--rm", "backup", "-m", "training.backup", "verify")

    stack("down", "--timeout", "20")
    stack.up()
    stack.until(lambda: all_serve(stack.serving_url), "the champions that served before", 60)
    for model in SOURCES:
        assert outputs(predicted(stack, data, model)) == outputs(before[model])
        assert delivered(stack, model) == runs[model]
        alias = httpx.get(
            f"{stack.mlflow_url}/api/2.0/mlflow/registered-models/alias",
            params={"name": model, "alias": "champion"},
            auth=("serving", stack.settings()["MLFLOW_SERVING_PASSWORD"]),
        )
        assert alias.json()["model_version"]["version"] == "1"


def predicted(stack: Composed, data: Data, model: str) -> dict[str, Any]:
    event = as_json(data.new_events(model).slice(0, 1).to_pylist()[0])
    return {**Serving(stack.serving_url, model).predict(event)}


def outputs(answer: dict[str, Any]) -> dict[str, Any]:
    """What must not change when the service starts again: everything but the id."""
    return {name: value for name, value in answer.items() if name != "prediction_id"}


def running(stack: Composed) -> bool:
    with stack.airflow() as airflow:
        return any(not run.over for run in airflow.runs("data"))


def delivered(stack: Composed, model: str) -> list[tuple[str, str]]:
    with stack.airflow(model) as airflow:
        return [(run.id, run.state) for run in airflow.runs("data")]
