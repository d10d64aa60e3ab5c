"""The loop in containers, driven through its published ports and its landing folder."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from local.generator import LABEL_DELAY, land
from local.plans.card_fraud import Plan
from local.traffic import Serving, as_json
from tests.compose.composed_stack import Composed
from training.contract.base import Days

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]
PLAN = Plan(customers=400, terminals=800)


@pytest.fixture
def stack(images: dict[str, str], tmp_path: Path) -> Iterator[Composed]:
    composed = Composed(tmp_path)
    yield composed
    composed("down", "--volumes", "--timeout", "5")


def test_a_partition_becomes_a_champion_and_nothing_is_lost(stack: Composed) -> None:
    stack.up()
    generator, history = PLAN.generator, PLAN.history
    labels = Days(start=history.start + LABEL_DELAY, end=history.end)
    land(generator, stack.landing, PLAN.source, "labels", labels)
    land(generator, stack.landing, PLAN.source, "events", history)
    stack.until(lambda: running(stack), "the data run to begin", 120)
    stack("restart", "redis", "postgres", "mlflow")
    stack.until(lambda: stack.champion() == 1, "the first champion", 420)
    payment = as_json(generator.events(history.end).slice(0, 1).to_pylist()[0])
    before = Serving(stack.serving_url, PLAN.model).predict(payment)
    assert before["model_version"] == 1
    assert not before["features_defaulted"]
    runs = delivered(stack)

    stack("down", "--timeout", "20")
    stack.up()
    stack.until(lambda: stack.champion() == 1, "the champion that served before", 60)
    after = Serving(stack.serving_url, PLAN.model).predict(payment)
    assert (after["score"], after["features_defaulted"]) == (before["score"], False)
    assert delivered(stack) == runs
    alias = httpx.get(
        f"{stack.mlflow_url}/api/2.0/mlflow/registered-models/alias", params={"name": PLAN.model, "alias": "champion"}
    )
    assert alias.json()["model_version"]["version"] == "1"


def running(stack: Composed) -> bool:
    with stack.airflow() as airflow:
        return any(not run.over for run in airflow.runs("data"))


def delivered(stack: Composed) -> list[tuple[str, str]]:
    with stack.airflow() as airflow:
        return [(run.id, run.state) for run in airflow.runs("data")]
