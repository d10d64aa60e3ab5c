"""The service keeps to its OpenAPI document: whatever a caller sends, the document describes the answer."""

import os
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from testing.serving_artifacts import artifact
from testing.serving_stack import Service, fill_online_store, registered, service_process
from testing.waiting import eventually
from training.adapters.features import Features
from training.adapters.registry import Registry
from training.contract.model_spec import load_model_spec
from training.settings import Settings

pytestmark = pytest.mark.ci

GETS = ("/models", "/models/{model}", "/models/{model}/signals", "/admin/state")
POSTS = ("/predict", "/predict_batch", "/models/card_fraud/predict", "/models/card_fraud/predict_batch")
ADMIN_POSTS = ("/admin/drain", "/admin/resume", "/admin/models/{model}/retry")
POSTS += ADMIN_POSTS
OURS = (*GETS, *POSTS)
ADMIN = {"Authorization": "Bearer key-of-an-admin"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A champion, with explanations and pinning. The API keys have one of an admin."""
    folder = tmp_path_factory.mktemp("openapi")
    where = Settings(home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db", serving_models="card_fraud")
    spec = load_model_spec("card_fraud")
    fill_online_store(where, spec)
    path = artifact(folder / "model", Features(where, spec).names(), -1.0)
    Registry(where.tracking_uri).set_alias("card_fraud", "champion", registered(where, path).version)
    made = service_process(where)
    # A slow machine is no defect of an answer.
    made.env |= {"CT_SERVING_EXPLAIN": "true", "CT_SERVING_PINNING": "true", "CT_SERVING_STORE_DOWN": "defaults"}
    made.env |= {"CT_SERVING_MAXIMUM_LAG_SECONDS": str(60)}
    keys = folder / "keys"
    keys.write_text(f"admin someone {sha256(b'key-of-an-admin').hexdigest()}\n")
    made.env |= {"CT_SERVING_KEYS_FILE": str(keys)}
    with made:
        eventually(made.ready, 120)
        yield made


def test_every_answer_is_one_that_the_document_names(service: Service) -> None:
    """It has a status, a content type and a body that the document names."""
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    held = [not_a_server_error, checks.status_code_conformance, checks.content_type_conformance]
    held.append(checks.response_schema_conformance)
    document = httpx.get(f"{service.url}/docs.json").json()
    document["paths"] = {path: document["paths"][path] for path in OURS}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["responses"]["200"]["content"]["application/json"]["schema"], path
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=service.url)
    examples = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "10"))

    for operation in schema.get_all_operations():
        strategy = operation.ok().as_strategy()

        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=strategy)
        def holds(case: Any) -> None:
            case.call_and_validate(checks=held, timeout=30, headers=ADMIN)

        holds()


@pytest.mark.parametrize("path", [*GETS, *ADMIN_POSTS])
def test_an_admin_gets_what_the_document_names(service: Service, path: str) -> None:
    import schemathesis

    document = httpx.get(f"{service.url}/docs.json").json()
    operation = schemathesis.openapi.from_dict(document)[path]["GET" if path in GETS else "POST"]
    answer = httpx.request(operation.method, service.url + path.format(model="card_fraud"), headers=ADMIN)
    assert answer.status_code == 200
    operation.validate_response(answer)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/models/a%0Ab", "/models/%0A", "/models/a%0Ab/predict", "/v2/models/a%0A/ready"])
def test_a_path_with_a_line_break_is_answered_as_the_document_says(service: Service, method: str, path: str) -> None:
    answer = httpx.request(method, service.url + path, headers=ADMIN)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
    assert "line break" in answer.json()["error"]
