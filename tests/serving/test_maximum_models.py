"""A service with more models than may be in memory. The tests run in order.

A real `bentoml serve`; the registry is an SQLite file. All models learn from one source.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testing.http_client import http
from testing.many_models import ManyModels, running_models
from testing.serving_artifacts import EVENT
from testing.waiting import eventually
from tests.serving.prediction_rows import logged_rows
from training.adapters.lake import Lake
from training.adapters.registry import Registry
from training.contract.traffic import FULL, Desired

pytestmark = pytest.mark.long

MODELS = ("a", "b", "c", "d")
MAXIMUM = 2
#: Of the weights of a model that takes much memory.
MEGABYTES = 32


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyModels]:
    kinds = dict.fromkeys(MODELS, "binary")
    fields: dict[str, Any] = {
        "serving_maximum_models": MAXIMUM,
        "serving_deadline_seconds": 60,
        "serving_pinning": True,
    }
    with running_models(tmp_path_factory.mktemp("maximum"), kinds, **fields) as made:
        yield made


def loaded(models: ManyModels) -> set[str]:
    """The models in memory."""
    return {name for name, model in models.served().models.items() if model.loaded}


def metric(models: ManyModels, name: str) -> float:
    lines = http.get(f"{models.service.url}/metrics", timeout=30).text.splitlines()
    [value] = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")]
    return float(value)


def of_model(name: str, model: str) -> str:
    return f'{name}{{model="{model}"}}'


def use(models: ManyModels, *names: str) -> None:
    """Send a request to each model, one after another, until all models but the last ones are unloaded."""

    def only_they_are_loaded() -> bool:
        for name in names:
            assert models.predict(name).status_code == 200
        return loaded(models) == set(names[-MAXIMUM:])

    eventually(only_they_are_loaded, 60)


def resident(models: ManyModels) -> float:
    """Memory of the worker, in MB."""
    pages = int(Path(f"/proc/{models.service.worker()}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@contextmanager
def restarted(models: ManyModels, **environment: str) -> Iterator[None]:
    """The service starts again, with a new log and, until it is started the next time, with these variables."""
    before, service = models.service.env, models.service
    service.stop()
    service.log.unlink()
    service.env = before | environment
    service.start()
    eventually(service.ready)
    try:
        yield
    finally:
        service.env = before


def test_a_replica_with_an_empty_disk_loads_every_model_once_and_keeps_as_many_as_fit(models: ManyModels) -> None:
    eventually(lambda: loaded(models) == {"a", "b"})
    for name in MODELS:
        assert (Path(models.settings.serving) / "models" / name / "1").is_dir()


def test_an_unloaded_model_counts_as_ready(models: ManyModels) -> None:
    unloaded = eventually(lambda: (now := models.of("d")).ready == "yes" and now)
    assert (unloaded.loaded, unloaded.ready, unloaded.problem, models.champion("d")) == (False, "yes", None, 1)
    answer = http.get(f"{models.service.url}/v2/models/d/ready", timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"name": "d", "loaded": False, "ready": True})
    index = http.post(f"{models.service.url}/v2/repository/index", timeout=30).json()
    assert {(each["name"], each["state"]) for each in index} == {(name, "READY") for name in MODELS}
    assert {each["name"] for each in index if "unloaded" in each["reason"]} == {"c", "d"}
    expected = {"model_loaded": 0.0, "model_ready": 1.0, "model_unloads_total": 1.0, "champion_version": 1.0}
    # They are set once a second.
    eventually(lambda: {name: metric(models, of_model(f"perennial_{name}", "d")) for name in expected} == expected)
    eventually(lambda: metric(models, of_model("perennial_model_loaded", "a")) == 1)


def test_the_first_requests_load_a_model_together_and_the_one_idle_longest_is_unloaded(models: ManyModels) -> None:
    use(models, "a", "b")
    before = models.service.log.read_text().count("d version 1 is loaded again")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: models.predict("d"), range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert models.service.log.read_text().count("d version 1 is loaded again") == before + 1
    eventually(lambda: loaded(models) == {"b", "d"})
    use(models, "a", "b")
    use(models, "b", "a", "c")


def test_each_door_loads_the_model(models: ManyModels) -> None:
    url = models.service.url
    use(models, "a", "b")
    assert http.post(f"{url}/models/c/predict_batch", json=[EVENT, EVENT], timeout=60).status_code == 200
    inputs = [
        {"name": name, "datatype": datatype, "shape": [1], "data": [EVENT[name]]}
        for name, datatype in (
            ("transaction_id", "INT64"),
            ("event_time", "BYTES"),
            ("customer_id", "INT64"),
            ("terminal_id", "INT64"),
            ("amount", "FP64"),
        )
    ]
    answer = http.post(f"{url}/v2/models/d/versions/1/infer", json={"inputs": inputs}, timeout=60)
    assert (answer.status_code, answer.json().get("model_version")) == (200, "1"), answer.text
    pinned = {"X-Perennial-Version": "champion"}
    assert http.post(f"{url}/models/a/predict", json=EVENT, headers=pinned, timeout=60).status_code == 200


def test_predictions_and_signals_survive_an_unload(models: ManyModels) -> None:
    lake = Lake(models.settings.lake, "card_payments", "c")
    use(models, "a", "b")

    def counted() -> tuple[int, int]:
        seen = models.signals("c").of(1)
        return seen.answered, seen.scored

    ids, (answered, scored) = [], counted()
    for _ in range(2):
        ids.append(models.predict("c").json()["prediction_id"])
        use(models, "a", "b")
    assert counted() == (answered + 2, scored + 2)
    assert models.signals("c").traffic == FULL
    eventually(lambda: set(ids) <= {row["prediction_id"] for row in logged_rows(lake)})


def test_a_rollout_reaches_an_unloaded_model(models: ManyModels) -> None:
    use(models, "a", "b")
    with models.calls("a") as statuses:
        models.roll_out("d", models.register("d", 0.5))
    assert set(statuses) == {200}
    assert models.champion("d") == 2
    use(models, "a", "b")
    assert (models.champion("d"), models.of("d").problem, models.of("d").loaded) == (2, None, False)
    assert models.predict("d").json()["model_version"] == 2


def test_a_version_that_cannot_serve_is_refused_by_an_unloaded_model_too(models: ManyModels) -> None:
    use(models, "a", "b")
    broken = models.register("c", golden_error=0.2)
    models.set_champion("c", broken)
    eventually(lambda: broken in models.of("c").refused)
    assert models.predict("c").json()["model_version"] == 1
    models.set_champion("c", 1)
    use(models, "a", "b")


def test_a_model_in_a_rollout_stays_and_the_limit_is_exceeded_meanwhile(models: ManyModels) -> None:
    registry = Registry(models.settings.tracking_uri)
    challengers = {name: models.register(name, 0.1) for name in ("a", "b")}
    for name, version in challengers.items():
        registry.set_alias(name, "challenger", version)
        registry.set_traffic(name, Desired(mode="shadow", stage="1.1-shadow"))
    eventually(lambda: all("challenger" in models.of(name).models for name in challengers))
    with models.calls("c"), models.calls("d"):
        eventually(lambda: metric(models, "perennial_models_above_maximum") > 0)
        assert "more than CT_SERVING_MAXIMUM_MODELS=2" in models.service.log.read_text()
    eventually(lambda: metric(models, "perennial_models_above_maximum") == 0)
    assert loaded(models) == {"a", "b"}
    for name in challengers:
        assert "challenger" in models.of(name).models
        registry.set_traffic(name, FULL)
        registry.remove_alias(name, "challenger")
    use(models, "c", "d")


def test_memory_is_given_back(models: ManyModels) -> None:
    big = {name: models.register(name, megabytes=MEGABYTES) for name in ("a", "b")}
    use(models, "c", "d")
    small = resident(models)
    for name, version in big.items():
        models.promote(name, version)
    use(models, "a", "b")
    large = resident(models)
    assert large > small + len(big) * MEGABYTES
    use(models, "c", "d")
    eventually(lambda: resident(models) < small + (large - small) / 2, 60)


def test_a_copy_that_is_damaged_is_fetched_again(models: ManyModels) -> None:
    use(models, "a", "b")
    copy = Path(models.settings.serving) / "models" / "c" / "1"
    (copy / "model.onnx").write_bytes(b"damaged")
    refused = models.predict("c")
    assert (refused.status_code, "cannot be loaded now" in refused.text) == (503, True)
    assert refused.headers["retry-after"] == "1"
    eventually(lambda: models.predict("c").status_code == 200)


def test_a_restart_loads_the_models_that_were_used_last(models: ManyModels) -> None:
    use(models, "d", "c", "b")
    shutil.rmtree(Path(models.settings.serving) / "models" / "a")  # It has to be loaded once, to have a copy.
    with restarted(models):
        assert models.of("d").ready == "yes"
        eventually(lambda: loaded(models) == {"b", "c"})
        eventually((Path(models.settings.serving) / "models" / "a" / "3").is_dir)
        assert "d version 2 is loaded" not in models.service.log.read_text()
        assert models.predict("d").json()["model_version"] == 2


def test_without_the_registry_an_unloaded_model_is_loaded_from_disk(models: ManyModels) -> None:
    use(models, "a", "b")
    with restarted(models, CT_TRACKING_URI="http://127.0.0.1:9"):
        eventually(lambda: models.of("d").problem)
        assert (models.of("d").loaded, models.of("d").ready) == (False, "yes")
        assert models.predict("d").json()["model_version"] == 2


def test_a_request_does_not_wait_longer_than_its_deadline(models: ManyModels) -> None:
    use(models, "a", "b")
    with restarted(models, CT_SERVING_DEADLINE_SECONDS="0.001"):
        refused = models.predict("d")
        assert (refused.status_code, "could not be loaded in time" in refused.text) == (503, True)
        assert refused.headers["retry-after"] == "1"
        eventually(lambda: "d version 2 is loaded again" in models.service.log.read_text())
