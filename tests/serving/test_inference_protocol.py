"""The Open Inference Protocol as its clients speak it: NVIDIA's `tritonclient`, and HTTP by hand."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from serving.keys import new_key
from testing.http_client import http
from testing.many_models import ManyModels, running_models
from testing.serving_artifacts import EVENT
from testing.task_kinds import CLASSES
from testing.waiting import eventually
from tests.serving.prediction_rows import logged_rows
from training.adapters.lake import Lake
from training.contract.signals import Signals
from training.settings import ROOT

pytestmark = pytest.mark.ci

KINDS = {"risk": "binary", "grade": "multiclass", "loss": "regression"}
DATATYPES = {"transaction_id": "INT64", "customer_id": "INT64", "terminal_id": "INT64", "amount": "FP64"}
NUMPY: dict[str, Any] = {"INT64": np.int64, "FP64": np.float64, "BYTES": object}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyModels]:
    with running_models(tmp_path_factory.mktemp("protocol"), KINDS, {"CT_SERVING_PINNING": "true"}) as made:
        yield made


@pytest.fixture
def client(models: ManyModels) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(models.service.url.removeprefix("http://"), network_timeout=60) as made:
        yield made


def inputs(*amounts: float, binary: bool = True) -> list[InferInput]:
    """An event for each of `amounts`."""
    made = []
    for name, value in EVENT.items():
        datatype = DATATYPES.get(name, "BYTES")
        values = np.array(amounts if name == "amount" else [value] * len(amounts), NUMPY[datatype])
        made.append(InferInput(name, [len(amounts)], datatype).set_data_from_numpy(values, binary_data=binary))
    return made


def json_body(*amounts: float, **more: Any) -> dict[str, Any]:
    tensors = [
        {
            "name": name,
            "datatype": DATATYPES.get(name, "BYTES"),
            "shape": [len(amounts)],
            "data": list(amounts) if name == "amount" else [value] * len(amounts),
        }
        for name, value in EVENT.items()
    ]
    return {"inputs": tensors, **more}


def post(models: ManyModels, path: str, body: Any, **headers: str) -> httpx.Response:
    return http.post(f"{models.service.url}/v2{path}", json=body, headers=headers, timeout=60)


def test_the_server_and_its_models_are_ready_and_describe_themselves(client: InferenceServerClient) -> None:
    assert client.is_server_live()
    assert eventually(client.is_server_ready)
    server = client.get_server_metadata()
    assert (server["name"], "binary_tensor_data" in server["extensions"]) == ("perennial", True)
    assert eventually(lambda: client.is_model_ready("risk"))
    assert client.is_model_ready("risk", "1")
    assert not client.is_model_ready("risk", "9")
    assert not client.is_model_ready("other")
    found = client.get_model_metadata("risk")
    assert (found["name"], found["versions"]) == ("risk", ["1"])
    assert {each["name"]: each["datatype"] for each in found["inputs"]} == {"event_time": "BYTES", **DATATYPES}
    assert {"name": "score", "datatype": "FP64", "shape": [-1]} in found["outputs"]
    assert client.get_model_metadata("risk", "1") == found
    index = {each["name"]: (each["version"], each["state"]) for each in client.get_model_repository_index()}
    assert index == dict.fromkeys(KINDS, ("1", "READY"))


@pytest.mark.parametrize("binary", [True, False])
def test_predictions_are_those_of_predict_batch(
    models: ManyModels, client: InferenceServerClient, binary: bool
) -> None:
    amounts = [10.0, 45.5, 90.0]
    for model, kind in KINDS.items():
        events = [EVENT | {"amount": amount} for amount in amounts]
        answer = http.post(f"{models.service.url}/models/{model}/predict_batch", json=events, timeout=60).json()
        result = client.infer(model, inputs(*amounts, binary=binary), request_id="mine")
        assert {key: result.get_response().get(key) for key in ("model_name", "model_version", "id")} == {
            "model_name": model,
            "model_version": "1",
            "id": "mine",
        }
        for field in {"binary": ["score"], "multiclass": ["class"], "regression": ["value"]}[kind]:
            found = result.as_numpy(field).tolist()
            found = [value.decode() if isinstance(value, bytes) else value for value in found]
            assert found == [each[field] for each in answer["predictions"]]
        if kind == "multiclass":
            assert result.as_numpy("probabilities.names").tolist() == [name.encode() for name in CLASSES]
            expected = [[each["probabilities"][name] for name in CLASSES] for each in answer["predictions"]]
            np.testing.assert_array_equal(result.as_numpy("probabilities"), expected)


def test_the_example_of_the_documentation_runs(models: ManyModels, capsys: pytest.CaptureFixture[str]) -> None:
    example = (ROOT / "docs" / "serving.md").read_text().split("```python")[1].split("```")[0]
    for written, here in (("127.0.0.1:3000", models.service.url.removeprefix("http://")), ("card_fraud", "risk")):
        assert written in example
        example = example.replace(written, here)
    exec(example, {})
    score = models.predict("risk").json()["score"]
    assert capsys.readouterr().out.strip() == str(np.array([score]))


def test_requested_outputs_come_as_they_are_wanted(client: InferenceServerClient) -> None:
    wanted = [InferRequestedOutput("decision", binary_data=False), InferRequestedOutput("score", binary_data=True)]
    response = client.infer("risk", inputs(10.0, 90.0), outputs=wanted)
    decision, score = response.get_response()["outputs"]
    assert (decision["name"], len(decision["data"])) == ("decision", 2)
    assert (score["name"], score["parameters"]) == ("score", {"binary_data_size": 16})
    assert response.as_numpy("score").shape == (2,)


def test_predictions_are_logged_and_counted_like_others(models: ManyModels, client: InferenceServerClient) -> None:
    before = scored(models)
    result = client.infer("risk", inputs(20.0, 40.0))
    ids = {value.decode() for value in result.as_numpy("prediction_id")}

    def logged() -> list[dict[str, Any]]:
        rows = logged_rows(Lake(models.settings.lake, "card_payments", "risk"))
        return [row for row in rows if row["prediction_id"] in ids]

    rows = eventually(lambda: len(found := logged()) == 2 and found)
    assert sorted(row["event"]["amount"] for row in rows) == [20.0, 40.0]
    assert {row["role"] for row in rows} == {"champion"}
    eventually(lambda: scored(models) == before + 2)
    metrics = eventually(
        lambda: 'path="/infer"' in (text := http.get(f"{models.service.url}/metrics", timeout=60).text) and text
    )
    assert 'perennial_request_seconds_count{model="risk",path="/infer"}' in metrics


def scored(models: ManyModels) -> int:
    """The rows of `risk` that its signals have counted."""
    answer = http.get(f"{models.service.url}/models/risk/signals", timeout=60)
    return sum(seen.scored for seen in Signals.model_validate_json(answer.content).versions.values())


def test_a_path_names_the_version_that_shall_answer(models: ManyModels, client: InferenceServerClient) -> None:
    first, second = models.register("loss", 5.0), models.register("loss", 50.0)
    models.promote("loss", first)
    models.promote("loss", second)
    values = {
        version: client.infer("loss", inputs(20.0), version).as_numpy("value")[0] for version in ("", str(second))
    }
    assert values[""] == values[str(second)]
    pinned = client.infer("loss", inputs(20.0), str(second))
    assert pinned.as_numpy("role").tolist() == [b"pinned"]
    with pytest.raises(InferenceServerException, match="'77' is no alias or version that is loaded here"):
        client.infer("loss", inputs(20.0), "77")
    with pytest.raises(InferenceServerException, match="'77' is no version that is loaded here"):
        client.get_model_metadata("loss", "77")


def test_errors_have_the_protocols_form(models: ManyModels, client: InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"\[1\]\.amount") as refused:
        client.infer("risk", inputs(10.0, -1.0))
    assert refused.value.status() == "422"
    with pytest.raises(InferenceServerException, match=r"other is not served here\. Models: grade, loss, risk"):
        client.infer("other", inputs(10.0))
    with pytest.raises(InferenceServerException, match="colour: unknown output; the outputs are score"):
        client.infer("risk", inputs(10.0), outputs=[InferRequestedOutput("colour")])
    with pytest.raises(InferenceServerException, match="compressed bodies are not supported"):
        client.infer("risk", inputs(10.0), request_compression_algorithm="gzip")
    with pytest.raises(InferenceServerException, match="is no part of the protocol here"):
        client.get_inference_statistics("risk")
    for path in ("/models/risk/infer", "/models/risk/versions/1/infer"):
        answer = post(models, path, json_body(10.0) | {"inputs": []})
        assert (answer.status_code, list(answer.json())) == (422, ["error"])
        answer = http.post(f"{models.service.url}/v2{path}", content=b"x" * (2 * 1024 * 1024 + 1), timeout=60)
        assert (answer.status_code, list(answer.json())) == (413, ["error"])


def test_json_by_hand(models: ManyModels) -> None:
    answer = post(models, "/models/risk/infer", json_body(10.0, 90.0, outputs=[{"name": "score"}], id="mine"))
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert found.keys() == {"model_name", "model_version", "id", "outputs"}
    [score] = found["outputs"]
    assert (score["name"], score["datatype"], score["shape"], len(score["data"])) == ("score", "FP64", [2], 2)


def test_binary_data_by_hand(models: ManyModels) -> None:
    body = json_body(10.0, parameters={"binary_data_output": True}, outputs=[{"name": "score"}])
    amount = np.array([10.0]).tobytes()
    for tensor in body["inputs"]:
        if tensor["name"] == "amount":
            del tensor["data"]
            tensor["parameters"] = {"binary_data_size": len(amount)}
    head = json.dumps(body).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    url = f"{models.service.url}/v2/models/risk/infer"
    answer = http.post(url, content=head + amount, headers=length, timeout=60)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
    end = int(answer.headers["inference-header-content-length"])
    [score] = json.loads(answer.content[:end])["outputs"]
    assert score["parameters"] == {"binary_data_size": 8}
    same = post(models, "/models/risk/infer", json_body(10.0)).json()["outputs"][0]["data"]
    assert np.frombuffer(answer.content[end:], "<f8").tolist() == same


@pytest.mark.long
def test_keys_guard_all_but_health(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("keys")
    key, line = new_key("shop", "predict")
    (folder / "keys").write_text(line)
    environment = {"CT_SERVING_KEYS_FILE": str(folder / "keys")}
    with (
        running_models(folder, {"risk": "binary"}, environment) as guarded,
        InferenceServerClient(guarded.service.url.removeprefix("http://"), network_timeout=60) as client,
    ):
        assert client.is_server_live()
        assert eventually(client.is_server_ready)
        bearer = {"Authorization": f"Bearer {key}"}
        for call in (client.get_server_metadata, lambda **more: client.infer("risk", inputs(10.0), **more)):
            with pytest.raises(InferenceServerException, match="valid API key"):
                call()
            assert call(headers=bearer)
        with pytest.raises(InferenceServerException, match="pinning is off"):
            client.infer("risk", inputs(10.0), "1", headers=bearer)
        for path in ("/models/other/predict", "/models/other", "/v2/models/other", "/v2/other"):
            url, method = guarded.service.url + path, "POST" if path.endswith("/predict") else "GET"
            unknown = http.request(method, url, timeout=60)
            assert (unknown.status_code, "risk" in unknown.text) == (401, False), "who has no key learns no names"
            mine = {"Authorization": bearer["Authorization"]}  # Triton's client adds its own to the dict.
            assert http.request(method, url, headers=mine, timeout=60).status_code == 404
