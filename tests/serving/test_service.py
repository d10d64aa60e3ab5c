"""The service as its callers meet it: a real `bentoml serve`, a real registry, a real online store.

The tests share one stack, and each of them leaves a champion that serves: they can run in any order. Its registry is a
database without a server, which costs less. tests/serving/test_rollouts.py has a server, and so has the last test here.
"""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from testing.serving_artifacts import EVENT
from testing.serving_stack import (
    MIDNIGHT,
    Stack,
    fill_online_store,
    running_mlflow,
    running_stack,
    service_process,
)
from testing.waiting import eventually
from tests.serving.prediction_rows import logged_rows, shipped
from training.adapters.lake import Lake
from training.contract.messages import RollbackInputs, RolloutInputs
from training.contract.replicas import ReplicaModels
from training.steps import rollback, rollout


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    shutil.copy(mlflow_database, folder)
    with running_stack(folder) as running:
        yield running


@dataclass(frozen=True)
class Beginning:
    """What the service answered before the first champion, and its models then."""

    live: httpx.Response
    ready: httpx.Response
    prediction: httpx.Response
    models: ReplicaModels


@pytest.fixture(scope="module")
def beginning(stack: Stack) -> Beginning:
    eventually(lambda: "no champion" in stack.service.problem())
    live, ready = (httpx.get(f"{stack.service.url}/{path}") for path in ("livez", "readyz"))
    prediction = stack.predict()
    fill_online_store(stack.settings, stack.spec)
    stack.promote(stack.register(bias=-1.0))
    eventually(stack.service.ready)
    models = eventually(lambda: (now := stack.service.models()) and now.problem is None and now)
    return Beginning(live, ready, prediction, models)


@pytest.fixture
def served(stack: Stack, beginning: Beginning) -> int:
    """The version that serves now. The service is started again if a test has stopped it."""
    if stack.service.process is None or stack.service.process.poll() is not None:
        stack.service.start()
    eventually(stack.service.ready)
    champion = stack.registry.by_alias("card_fraud", "champion")
    assert champion is not None
    eventually(lambda: stack.service.serves(champion.version))
    return champion.version


@pytest.fixture
def url(stack: Stack, served: int) -> str:
    return stack.service.url


def test_before_a_champion_it_lives_but_is_not_ready(beginning: Beginning) -> None:
    assert beginning.live.status_code == 200
    assert (beginning.ready.status_code, "no champion" in beginning.ready.text) == (503, True)
    assert beginning.prediction.status_code == 503
    assert "no champion in the registry yet" in beginning.prediction.json()["error"]


def test_the_first_champion_is_taken_up_without_a_restart(beginning: Beginning) -> None:
    assert (beginning.models.model, beginning.models.refused) == ("card_fraud", {})
    assert beginning.models.champion is not None
    assert beginning.models.champion.since.tzinfo is not None


def test_a_payment_is_answered(stack: Stack, served: int) -> None:
    answer = stack.predict()
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert 0 < said["score"] < 1
    assert said["decision"] == ("alert" if said["score"] >= said["threshold"] else "pass")
    assert (said["model"], said["model_version"], said["features_defaulted"]) == ("card_fraud", served, False)
    assert datetime.fromisoformat(said["feature_timestamp"]) == MIDNIGHT


def test_the_open_inference_protocol_gives_the_same_prediction(stack: Stack, url: str, served: int) -> None:
    """tests/serving/test_inference_protocol.py has the rest of the protocol."""
    datatypes = {int: "INT64", float: "FP64", str: "BYTES"}
    tensors = [
        {"name": name, "datatype": datatypes[type(value)], "shape": [1], "data": [value]}
        for name, value in EVENT.items()
    ]
    answer = httpx.post(f"{url}/v2/models/card_fraud/infer", json={"inputs": tensors}).json()
    outputs = {each["name"]: each["data"] for each in answer["outputs"]}
    assert (answer["model_version"], outputs["score"]) == (str(served), [stack.predict().json()["score"]])


def test_an_unknown_customer_gets_defaults_and_a_flag(stack: Stack, served: int) -> None:
    said = stack.predict(customer_id=999).json()
    assert (said["features_defaulted"], said["feature_timestamp"]) == (True, None)


def test_a_batch_is_answered_in_order(stack: Stack, url: str) -> None:
    payments = [EVENT | {"transaction_id": i, "amount": i / 10} for i in range(1000)]
    for content in (payments, {"events": payments}):
        said = httpx.post(f"{url}/predict_batch", json=content, timeout=30).json()["predictions"]
        scores = [each["score"] for each in said]
        assert len({each["prediction_id"] for each in said}) == 1000
        assert scores == sorted(scores)
    single = stack.predict(amount=50.0).json()["score"]
    assert single == pytest.approx(scores[500], abs=1e-6)


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (json.dumps(EVENT | {"amount": -1}), 422, "amount"),
        (json.dumps(EVENT | {"amount": float("nan")}), 422, "amount"),
        (json.dumps(EVENT | {"colour": "red"}), 422, "colour"),
        (json.dumps({k: v for k, v in EVENT.items() if k != "terminal_id"}), 422, "terminal_id"),
        ("not json", 400, "JSON"),
        (b"x" * 3_000_000, 413, "bytes"),
    ],
)
def test_a_bad_request_names_what_is_wrong(url: str, content: str | bytes, status: int, said: str) -> None:
    answer = httpx.post(f"{url}/predict", content=content)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_a_batch_that_is_too_large_is_refused(url: str) -> None:
    assert httpx.post(f"{url}/predict_batch", json=[EVENT] * 1001).status_code == 413


def test_the_openapi_document_describes_the_payment(url: str) -> None:
    paths = httpx.get(f"{url}/docs.json").json()["paths"]
    schema = paths["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == set(EVENT)
    assert {"/predict_batch", "/models", "/models/card_fraud/predict_batch"} <= set(paths)


def test_metrics_count_predictions(stack: Stack, url: str, served: int) -> None:
    decision = stack.predict().json()["decision"]
    labels = f'decision="{decision}",model="card_fraud",role="champion",version="{served}"'
    counted = f"perennial_predictions_total{{{labels}}}"
    # What each request counts is added once a second.
    text = eventually(lambda: counted in (now := httpx.get(f"{url}/metrics").text) and now)
    assert "perennial_champion_version" in text


def test_the_worker_holds_no_training_library(stack: Stack, served: int) -> None:
    maps = Path(f"/proc/{stack.service.worker()}/maps").read_text()
    assert "onnxruntime" in maps
    for library in ("/torch/", "/sklearn/", "/airflow/"):
        assert library not in maps, library


def test_swaps_under_load_fail_no_request(stack: Stack, served: int) -> None:
    stop, answers = threading.Event(), []

    def hammer() -> None:
        with httpx.Client(base_url=stack.service.url, timeout=30) as client:
            while not stop.is_set():
                answer = client.post("/predict", json=EVENT)
                answers.append((answer.status_code, answer.json().get("model_version"), answer.json().get("score")))
                stop.wait(0.005)  # Without it, most of the CPU of this file would go into these answers.

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
        thread.start()
    versions = [stack.register(bias) for bias in (-0.5, 0.5)]
    for version in (*versions, versions[0]):
        stack.promote(version)
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _, _ in answers} == {200}
    assert {version for _, version, _ in answers} == {served, *(each.version for each in versions)}
    # Each version has one score for this payment: no answer mixes two versions.
    assert len({(version, score) for _, version, score in answers}) == 3


def test_rollout_and_rollback_move_the_running_service(stack: Stack, served: int) -> None:
    settings = stack.planned([{"mode": "full"}])
    version = stack.register(bias=1.0).version
    moved = rollout.run(RolloutInputs(model="card_fraud", version=version, reason="better"), settings)
    assert (moved.version, moved.previous_version, moved.replicas[0].version) == (version, served, version)
    assert stack.predict().json()["model_version"] == version
    back = rollback.run(RollbackInputs(model="card_fraud", reason="worse"), settings)
    assert (back.version, back.previous_version) == (served, version)
    assert stack.predict().json()["model_version"] == served


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("golden", "golden rows differ"), ("features", "lack colour_of_card"), ("bytes", "its digest is")],
)
def test_a_faulty_version_is_refused_and_the_old_one_serves(stack: Stack, served: int, fault: str, reason: str) -> None:
    names = [*stack.names, "colour_of_card"] if fault == "features" else None
    version = stack.register(bias=2.0, names=names, golden_error=0.1 if fault == "golden" else 0.0)
    if fault == "bytes":
        [stored] = (stack.folder / "runs").rglob(f"{version.run_id}/artifacts/served/model.onnx")
        stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    stack.registry.set_alias("card_fraud", "champion", version.version)
    refused = eventually(lambda: stack.service.refused(version.version))
    assert reason in refused.reason
    assert stack.service.serves(served)
    assert stack.predict().json()["model_version"] == served
    stack.promote(stack.registry.get("card_fraud", served))


def test_predictions_reach_the_lake(stack: Stack, served: int) -> None:
    said = stack.predict(transaction_id=424242).json()
    lake = Lake(stack.settings.lake, "card_payments", "card_fraud")

    def row() -> dict[str, Any] | None:
        return next((each for each in logged_rows(lake) if each["event"]["transaction_id"] == 424242), None)

    found = eventually(row)
    assert found is not None
    assert (found["prediction_id"], dict(found["outputs"])["score"]) == (
        said["prediction_id"],
        pytest.approx(said["score"]),
    )
    assert (found["model_version"], found["replica"]) == (served, stack.service.models().replica)
    assert found["event"]["event_time"] == datetime(2026, 1, 5, 12, 30, tzinfo=UTC)
    assert list(dict(found["features"])) == stack.names


def test_a_log_that_cannot_write_makes_it_not_ready_until_it_can(stack: Stack, url: str) -> None:
    spool = Path(stack.settings.serving) / "predictions" / "card_payments" / "card_fraud"
    away = spool.rename(spool.with_name("away"))
    assert stack.predict(transaction_id=616161).status_code == 200
    ready = eventually(lambda: (now := httpx.get(f"{url}/readyz")).status_code == 503 and now)
    assert "The prediction log could not be written" in ready.text
    away.rename(spool)
    eventually(lambda: httpx.get(f"{url}/readyz").status_code == 200)
    lake = Lake(stack.settings.lake, "card_payments", "card_fraud")
    transactions = eventually(lambda: 616161 in (all_ := shipped(lake)) and all_)
    assert transactions.count(616161) == 1


@pytest.mark.long
def test_a_killed_parent_takes_its_worker_along_and_the_next_start_goes_on(stack: Stack, served: int) -> None:
    replica = stack.service.models().replica
    stack.predict(transaction_id=515151)
    assert stack.service.process is not None
    os.kill(stack.service.process.pid, signal.SIGKILL)  # the worker is not told
    stack.service.process.wait()
    eventually(lambda: stack.service.models() is None)
    stack.service.start()
    eventually(lambda: stack.service.serves(served), 60)
    assert stack.service.models().replica == replica
    transactions = shipped(Lake(stack.settings.lake, "card_payments", "card_fraud"))
    assert transactions.count(515151) == 1


@pytest.mark.long
def test_without_the_registry_it_serves_on_and_starts_from_the_last_good_copy(
    tmp_path: Path, mlflow_database: Path
) -> None:
    shutil.copy(mlflow_database, tmp_path)
    with running_mlflow(tmp_path) as mlflow, running_stack(tmp_path, tracking_uri=mlflow.url) as stack:
        fill_online_store(stack.settings, stack.spec)
        champion = stack.register(bias=-1.0)
        stack.promote(champion)
        mlflow.signal(signal.SIGKILL)
        eventually(lambda: "did not answer" in stack.service.problem(), 60)
        assert stack.predict().json()["model_version"] == champion.version
        stack.service.stop()
        with service_process(stack.settings) as cold:
            eventually(lambda: cold.serves(champion.version), 90)
            eventually(lambda: "last good copy" in cold.problem())
            eventually(cold.ready)
            mlflow.start()
            eventually(lambda: cold.models().problem is None, 90)
            assert cold.serves(champion.version)
