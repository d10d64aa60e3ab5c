"""A model changes to another source while it is called, and a model that cannot be served is not said not to exist.

A real `bentoml serve`; the registry is an SQLite file.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testing.http_client import http
from testing.many_models import ManyModels, running_models
from testing.serving_artifacts import EVENT
from testing.waiting import eventually
from tests.serving.prediction_rows import logged_rows
from training.adapters.lake import Lake
from training.contract.source_spec import SOURCES_DIR

pytestmark = pytest.mark.long

OLD, NEW = "card_payments", "other_payments"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyModels]:
    """A service of one model. NEW has the same columns and features as OLD."""
    folder = tmp_path_factory.mktemp("sources")
    repo = folder / "repo"
    shutil.copytree(SOURCES_DIR, repo, ignore=shutil.ignore_patterns("__pycache__", "data"))
    shutil.copy(repo / f"{OLD}.py", repo / f"{NEW}.py")
    content = (repo / f"{OLD}.yaml").read_text()
    (repo / f"{NEW}.yaml").write_text(content.replace(f"name: {OLD}\n", f"name: {NEW}\n", 1))
    with running_models(folder, {"risk": "binary"}, feature_repo=repo) as made:
        yield made


def _ids(world: ManyModels, source: str) -> set[str]:
    return {row["prediction_id"] for row in logged_rows(Lake(world.settings.lake, source, "risk"))}


def _spool(world: ManyModels) -> Path:
    return Path(world.settings.serving) / "predictions" / NEW / "risk"


def _is_up(world: ManyModels) -> bool:
    try:
        return http.get(f"{world.service.url}/models", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_every_request_is_answered_while_the_source_changes(world: ManyModels) -> None:
    before = world.predict("risk").json()["prediction_id"]
    with world.calls("risk") as statuses:
        world.write_spec("risk", source=NEW)
        eventually(lambda: _ids(world, NEW))
        after = world.predict("risk").json()["prediction_id"]
    assert set(statuses) == {200}
    eventually(lambda: after in _ids(world, NEW))
    assert before in _ids(world, OLD)
    assert not _ids(world, OLD) & _ids(world, NEW)
    assert world.of("risk").spec_problem is None


def test_a_restarted_replica_logs_to_the_new_source(world: ManyModels) -> None:
    world.service.stop()
    world.service.start()
    eventually(world.service.ready)
    made = world.predict("risk").json()["prediction_id"]
    eventually(lambda: made in _ids(world, NEW))
    assert made not in _ids(world, OLD)


def test_a_model_that_cannot_be_served_now_gets_503_and_the_reason(world: ManyModels) -> None:
    world.service.stop()
    spool, aside = _spool(world), world.folder / "aside"
    spool.rename(aside)
    spool.write_text("in the way")
    world.service.start()
    url = world.service.url
    paths = ("/predict", "/models/risk/predict", "/models/risk/predict_batch", "/v2/models/risk/infer")
    try:
        eventually(lambda: _is_up(world))
        for path in paths:
            answer = http.post(f"{url}{path}", json=EVENT, timeout=30)
            assert (answer.status_code, "cannot be served now" in answer.json()["error"]) == (503, True), path
        assert http.get(f"{url}/models/risk", timeout=30).status_code == 503
        assert http.get(f"{url}/v2/models/risk/ready", timeout=30).status_code == 400
        assert http.post(f"{url}/models/unknown/predict", json=EVENT, timeout=30).status_code == 404
    finally:
        spool.unlink()
        aside.rename(spool)
    eventually(world.service.ready)
    assert world.predict("risk").status_code == 200
