"""Metrics, docs and /admin on a port of their own, of a real `bentoml serve`."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testing.ports import free_port
from testing.serving_stack import Service, changed, service_process
from testing.waiting import eventually
from training.settings import Settings

pytestmark = pytest.mark.long


def service_settings(folder: Path) -> Settings:
    return Settings(
        home=folder / "home",
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        serving_models="card_fraud",
        serving_management_port=free_port(),
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_process(service_settings(tmp_path_factory.mktemp("management"))) as made:
        eventually(made.models, 120)
        yield made


@pytest.fixture
def management(service: Service) -> str:
    return f"http://127.0.0.1:{service.env['CT_SERVING_MANAGEMENT_PORT']}"


@pytest.mark.parametrize("path", ["/metrics", "/", "/docs.json", "/admin/state", "//metrics", "/models/../metrics"])
def test_callers_of_predictions_do_not_get_them(service: Service, path: str) -> None:
    answer = httpx.get(httpx.URL(service.url).copy_with(raw_path=path.encode()))
    assert answer.status_code == 404
    assert "perennial_" not in answer.text


def test_they_are_on_their_own_port(management: str) -> None:
    assert "perennial_champion_version" in httpx.get(f"{management}/metrics").text
    assert "/admin/state" in httpx.get(f"{management}/docs.json").json()["paths"]
    assert httpx.get(management).status_code == 200
    # Without keys nobody is an admin.
    assert httpx.get(f"{management}/admin/state").status_code == 403


def test_what_callers_need_is_where_it_was(service: Service) -> None:
    assert httpx.get(f"{service.url}/livez").status_code == 200
    assert httpx.get(f"{service.url}/readyz").status_code == 503
    assert httpx.get(f"{service.url}/models").status_code == 200
    assert httpx.get(f"{service.url}/v2").status_code == 200
    assert httpx.post(f"{service.url}/predict", json={}).status_code in (422, 503)


def test_the_docs_can_be_tried_out(service: Service, management: str) -> None:
    for path, content in (("/predict", {}), ("/models/card_fraud/predict", {"amount": "much"})):
        answers = [httpx.post(f"{url}{path}", json=content) for url in (service.url, management)]
        assert [answer.status_code for answer in answers] == [answers[0].status_code] * 2
        assert answers[0].json() == answers[1].json()


def test_a_port_that_is_taken_is_named(service: Service, management: str, tmp_path: Path) -> None:
    port = int(management.split(":")[2])
    with service_process(changed(service_settings(tmp_path), serving_management_port=port)) as second:
        wanted = f"CT_SERVING_MANAGEMENT_PORT={port}: Address already in use"
        eventually(lambda: wanted in second.log.read_text(), 120)


def test_its_end_closes_both_ports(service: Service, management: str) -> None:
    service.stop()
    for url in (service.url, management):
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/livez")
