"""Multiclass and regression on the real service: answers, the document, the log, metrics, refusals and rollouts.

The tests of a kind run in order on one stack, whose champion is version 1.
"""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import jsonschema
import pytest

from testing.callers import calling
from testing.http_client import http
from testing.serving_artifacts import EVENT, artifact
from testing.serving_stack import Stack, fill_online_store, registered, running_stack
from testing.task_kinds import CLASSES, COVERAGE, HALF_WIDTH, MODEL, SOURCE, artifact_of, models_of
from testing.waiting import eventually
from tests.serving.prediction_rows import logged_rows
from training.adapters.features import Features
from training.adapters.lake import Lake
from training.adapters.registry import ModelVersion
from training.contract.errors import RolloutAborted
from training.contract.messages import RolloutInputs
from training.contract.predictions import read_prediction
from training.steps import rollout

pytestmark = pytest.mark.long
SHADOW = {"mode": "shadow", "requests": 100, "maximum_minutes": 8, "on_silence": "fail"}
CANARY = {"mode": "canary", "weight": 50, "requests": 60, "maximum_minutes": 8, "on_silence": "fail"}
AB = {"mode": "ab", "weight": 50, "experiment": "new", "requests": 60, "maximum_minutes": 8, "on_silence": "fail"}
FULL = {"mode": "full"}
#: On a busy machine a good model may be late.
UNTIMED = {"maximum_p99_ms": None, "maximum_p99_ratio": None}


class KindStack:
    """A stack whose model has a task of one kind."""

    def __init__(self, stack: Stack, kind: str) -> None:
        self.stack, self.kind = stack, kind

    def register(self, **changes: Any) -> ModelVersion:
        self.stack.count += 1
        folder = self.stack.folder / f"kind{self.stack.count}"
        features = Features(self.stack.settings, self.stack.spec)
        return registered(self.stack.settings, artifact_of(folder, self.kind, features, **changes))

    def answer(self, amount: float, query: str = "") -> dict[str, Any]:
        said = http.post(f"{self.stack.service.url}/predict{query}", json=EVENT | {"amount": amount}, timeout=60)
        assert said.status_code == 200, said.text
        found: dict[str, Any] = said.json()
        return found


@pytest.fixture(scope="module", params=["multiclass", "regression"])
def kind_stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KindStack]:
    folder = tmp_path_factory.mktemp(request.param)
    models = models_of(folder / "models", request.param)
    with running_stack(folder, models_dir=models, serving_explain=True) as stack:
        fill_online_store(stack.settings, stack.spec)
        made = KindStack(stack, request.param)
        stack.promote(made.register())
        yield made


def test_an_answer_has_the_fields_of_its_kind_and_the_document_describes_them(kind_stack: KindStack) -> None:
    url = kind_stack.stack.service.url
    operations = httpx.get(f"{url}/docs.json", timeout=60).json()
    answers = [kind_stack.answer(amount) for amount in (10, 45, 90)]
    if kind_stack.kind == "multiclass":
        assert [said["class"] for said in answers] == [said["decision"] for said in answers] == list(CLASSES)
        assert all(sum(said["probabilities"].values()) == pytest.approx(1, abs=1e-5) for said in answers)
        between = kind_stack.answer(30.2)
        assert (between["decision"], between["class"]) == ("reject", "middle")
    else:
        assert [said["value"] for said in answers] == pytest.approx([20, 90, 180])
        interval = {"lower": 90 - HALF_WIDTH, "upper": 90 + HALF_WIDTH, "coverage": COVERAGE}
        assert answers[1]["interval"] == pytest.approx(interval)
        assert not {"decision", "score", "threshold"} & answers[1].keys()
    for path, said in (("/predict", answers[0]), ("/predict_batch", {"predictions": answers})):
        document = operations["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate(said, {**document, "components": operations["components"]})
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"score": 0.5}, {**document, "components": operations["components"]})
    batch = http.post(f"{url}/predict_batch", json={"events": [EVENT, EVENT | {"amount": 90}]}, timeout=60).json()
    ours = {"prediction_id", "feature_timestamp"}
    assert batch["predictions"][1].keys() == answers[2].keys()
    assert {n: v for n, v in batch["predictions"][1].items() if n not in ours} == {
        n: v for n, v in answers[2].items() if n not in ours
    }
    assert read_prediction(httpx.post(f"{url}/predict", json=EVENT, timeout=60).content)["model"] == MODEL


def test_an_explanation_is_of_the_output_that_was_predicted(kind_stack: KindStack) -> None:
    said = kind_stack.answer(90.0, "?explain=true")
    explained = said["explanation"]
    expected = ("value", said["value"]) if kind_stack.kind == "regression" else ("high", said["probabilities"]["high"])
    total = explained["base_score"] + sum(explained["contributions"].values())
    assert (explained["output"], total) == (expected[0], pytest.approx(expected[1], abs=1e-3))


def test_the_log_has_the_outputs_and_the_decision(kind_stack: KindStack) -> None:
    said, stack = kind_stack.answer(77.0), kind_stack.stack

    def found() -> list[dict[str, Any]]:
        rows = logged_rows(Lake(stack.settings.lake, SOURCE, MODEL))
        return [row for row in rows if row["prediction_id"] == said["prediction_id"]]

    [row] = eventually(found)
    outputs = dict(row["outputs"])
    assert row["decision"] == ("high" if kind_stack.kind == "multiclass" else "")
    if kind_stack.kind == "multiclass":
        assert outputs == pytest.approx(said["probabilities"])
    else:
        assert outputs["value"] == pytest.approx(154)
        assert (outputs["lower"], outputs["upper"]) == pytest.approx((154 - HALF_WIDTH, 154 + HALF_WIDTH))


def test_metrics_count_decisions(kind_stack: KindStack) -> None:
    kind_stack.answer(90.0)
    decision = "high" if kind_stack.kind == "multiclass" else ""
    counted = f'perennial_predictions_total{{decision="{decision}",model="{MODEL}",role="champion",version="1"}}'
    group = "high" if kind_stack.kind == "multiclass" else "19"  # the champion's bounds are 10, 20, …, 190
    grouped = f'perennial_outputs_total{{group="{group}",model="{MODEL}",version="1"}}'

    def text() -> str:
        return httpx.get(f"{kind_stack.stack.service.url}/metrics", timeout=60).text

    eventually(lambda: counted in text() and grouped in text(), 30)


def test_a_version_of_another_kind_is_refused(kind_stack: KindStack) -> None:
    stack = kind_stack.stack
    features = Features(stack.settings, stack.spec)
    binary = artifact(stack.folder / "other", features.names(), 0.0, features=features)
    version = registered(stack.settings, binary).version
    stack.registry.set_alias(MODEL, "challenger", version)
    refusal = eventually(lambda: stack.service.refused(version))
    assert "binary" in refusal.reason
    assert kind_stack.kind in refusal.reason
    assert stack.service.serves(1)
    stack.registry.remove_alias(MODEL, "challenger")


@contextmanager
def callers(kind_stack: KindStack) -> Iterator[Counter[int]]:
    """Two callers with amounts from 0 to 100, and the statuses that they get."""
    statuses = Counter[int]()

    def call(seed: int, stop: threading.Event) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=kind_stack.stack.service.url, timeout=60) as client:
            while not stop.wait(0.01):
                body = EVENT | {"customer_id": chance.randrange(1000), "amount": chance.uniform(0, 100)}
                statuses[client.post("/predict", json=body).status_code] += 1

    with calling(2, call):
        yield statuses


def test_a_good_version_passes_its_stages(kind_stack: KindStack) -> None:
    stack, version = kind_stack.stack, kind_stack.register(shift=0.5).version
    settings = stack.planned([SHADOW, AB, FULL], UNTIMED)
    with callers(kind_stack) as statuses:
        result = rollout.run(RolloutInputs(model=MODEL, version=version), settings)
    assert set(statuses) == {200}
    assert stack.service.serves(version)
    shadow, ab = result.stages
    assert any(line.startswith("kept: agreement") for line in shadow.findings)
    assert any(line.startswith("kept: score shift") for line in shadow.findings)
    assert not any("alert" in line for line in (*shadow.findings, *ab.comparison))


@pytest.mark.parametrize(
    ("shift", "guards", "guard"), [(60.0, {}, "agreement"), (8.0, {"minimum_agreement": None}, "score_shift")]
)
def test_a_version_with_other_outputs_is_rolled_back(
    kind_stack: KindStack, shift: float, guards: dict[str, Any], guard: str
) -> None:
    stack, version = kind_stack.stack, kind_stack.register(shift=shift).version
    [champion] = [v for v in range(1, version) if stack.service.serves(v)]
    limits = {**UNTIMED, **guards} | ({"maximum_score_shift": 0.02} if guard == "score_shift" else {})
    settings = stack.planned([{**CANARY, "requests": 5000}, FULL], limits)
    with callers(kind_stack) as statuses, pytest.raises(RolloutAborted) as failed:
        rollout.run(RolloutInputs(model=MODEL, version=version), settings)
    assert guard in failed.value.message.partition(" tripped")[0], failed.value.message
    eventually(lambda: stack.service.serves(champion) and stack.service.mode() == "full")
    assert set(statuses) == {200}


def test_a_version_with_other_classes_is_compared_by_their_names(kind_stack: KindStack) -> None:
    if kind_stack.kind != "multiclass":
        pytest.skip("a regression has no classes")
    stack, version = kind_stack.stack, kind_stack.register(classes=("low", "middle", "huge")).version
    settings = stack.planned([{**SHADOW, "requests": 5000}, FULL], UNTIMED)
    with callers(kind_stack), pytest.raises(RolloutAborted, match="agreement") as failed:
        rollout.run(RolloutInputs(model=MODEL, version=version), settings)
    assert "score shift" in failed.value.message
