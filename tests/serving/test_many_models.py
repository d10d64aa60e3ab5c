"""One service for several models: each has its own versions, rollouts and troubles. The tests run in order.

A real `bentoml serve`; the registry is an SQLite file. All models learn from one source.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from testing.http_client import http
from testing.many_models import ManyModels, running_models
from testing.serving_artifacts import EVENT
from testing.waiting import eventually
from tests.serving.prediction_rows import logged_rows
from training.adapters.lake import Lake
from training.adapters.registry import Registry
from training.contract.errors import StepError
from training.contract.traffic import Desired
from training.onboarding.removal import model_removal

pytestmark = pytest.mark.ci

SOURCE = "card_payments"
#: What the specs say: a binary model, a regression, one that never gets a version, and one of another service.
KINDS = {"risk": "binary", "loss": "regression", "unborn": "binary", "foreign": "binary"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyModels]:
    specs, folder = {"foreign": {"serving": "elsewhere"}}, tmp_path_factory.mktemp("many")
    with running_models(folder, KINDS, specs=specs, unborn=("unborn", "foreign")) as made:
        yield made


def test_each_model_answers_by_its_own_task(world: ManyModels) -> None:
    assert {"score", "decision", "threshold"} <= world.predict("risk").json().keys()
    assert world.predict("loss", amount=20.0).json()["value"] == pytest.approx(40, abs=1)
    body = [EVENT, EVENT | {"amount": 30.0}]
    answer = http.post(f"{world.service.url}/models/loss/predict_batch", json=body, timeout=60).json()
    assert [each["model"] for each in answer["predictions"]] == ["loss", "loss"]


def test_a_model_without_a_champion_does_not_take_the_others_out_of_the_rotation(world: ManyModels) -> None:
    served = world.served()
    assert served.models.keys() == {"risk", "loss", "unborn"}, "foreign is of another service"
    assert "no champion in the registry" in served.models["unborn"].ready
    eventually(lambda: world.of("risk").ready == "yes")
    assert world.service.ready()
    refused = world.predict("unborn")
    assert (refused.status_code, "No champion serves" in refused.text) == (503, True)
    metrics = http.get(f"{world.service.url}/metrics", timeout=30).text
    assert 'perennial_champion_version{model="risk"} 1.0' in metrics
    assert 'perennial_champion_version{model="unborn"} 0.0' in metrics
    assert 'perennial_registry_champion_version{model="risk"} 1.0' in metrics
    assert 'perennial_registry_answers{model="risk"} 1.0' in metrics
    assert 'perennial_registry_champion_version{model="unborn"} 0.0' in metrics
    assert 'perennial_requests_refused_total{model="unborn",status="503"}' in metrics


def test_a_request_without_a_model_or_to_an_unknown_one_is_told_the_models(world: ManyModels) -> None:
    url = world.service.url
    for path in ("/predict", "/predict_batch", "/models/foreign/predict", "/models/other/predict_batch"):
        answer = http.post(f"{url}{path}", json=EVENT, timeout=30)
        assert (answer.status_code, "Models: loss, risk, unborn" in answer.json()["error"]) == (404, True)
    for path in ("/models/other", "/models/other/signals"):
        assert http.get(f"{url}{path}", timeout=30).status_code == 404
    assert http.get(f"{url}/models/risk/predict", timeout=30).status_code == 405


def test_the_document_has_the_request_schema_of_each_model(world: ManyModels) -> None:
    document = http.get(f"{world.service.url}/docs.json", timeout=60).json()
    paths, groups = document["paths"], [tag["name"] for tag in document["tags"]]
    assert (document["info"]["title"], groups[:2]) == (
        "Perennial: predictions of the service default",
        ["loss", "risk"],
    )
    assert f"# {document['info']['title']}" in document["info"]["description"]
    assert "/predict" not in paths
    assert all(set(each["tags"]) <= set(groups) for path in paths.values() for each in path.values())
    for model, output in (("risk", "score"), ("loss", "value")):
        operation = paths[f"/models/{model}/predict"]["post"]
        assert operation["tags"] == [model]
        assert EVENT.keys() <= operation["requestBody"]["content"]["application/json"]["schema"]["properties"].keys()
        answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert output in answer["properties"]


def test_each_model_has_rollouts_of_its_own(world: ManyModels) -> None:
    risk, loss = world.register("risk", 0.5), world.register("loss", 5.0)
    with world.calls("loss") as statuses:
        world.roll_out("risk", risk)
        assert (world.champion("risk"), world.champion("loss")) == (risk, 1)
        world.roll_out("loss", loss)
    assert (world.champion("risk"), world.champion("loss")) == (risk, loss)
    assert set(statuses) == {200}
    signals = http.get(f"{world.service.url}/models/loss/signals", timeout=30).json()
    assert signals["champion"] == loss


def test_a_broken_version_of_one_model_is_refused_and_the_others_go_on(world: ManyModels) -> None:
    before, broken = world.champion("risk"), world.register("risk", golden_error=0.2)
    with world.calls("loss") as statuses, pytest.raises(StepError, match="refuses risk version"):
        world.roll_out("risk", broken)
    assert set(statuses) == {200}
    assert world.champion("risk") == before
    assert world.predict("risk").status_code == 200
    assert world.service.ready()


def logged(world: ManyModels, model: str, prediction_id: str) -> list[dict[str, Any]]:
    """The rows of the log with this id."""
    rows = logged_rows(Lake(world.settings.lake, SOURCE, model))
    return [row for row in rows if row["prediction_id"] == prediction_id]


@pytest.mark.parametrize(("model", "output"), [("risk", "score"), ("loss", "value")])
def test_each_model_has_a_prediction_log_of_its_own(world: ManyModels, model: str, output: str) -> None:
    answer = world.predict(model).json()
    [row] = eventually(lambda: logged(world, model, answer["prediction_id"]))
    assert output in dict(row["outputs"])


def test_a_model_that_cannot_log_is_not_ready_and_the_others_are(world: ManyModels) -> None:
    spool = world.spool("loss")
    [open_segment] = eventually(lambda: list(spool.glob("*.open")))
    in_the_way = spool / f"{int(open_segment.stem) + 1:012d}.open"
    in_the_way.mkdir()
    try:
        assert world.predict("loss").status_code == 200
        ready = eventually(lambda: (said := world.served().models["loss"].ready) != "yes" and said)
        assert "could not be written" in ready
        assert world.served().models["risk"].ready == "yes"
        assert world.service.ready()
        metrics = http.get(f"{world.service.url}/metrics", timeout=30).text
        assert 'perennial_model_ready{model="risk"} 1.0' in metrics
    finally:
        in_the_way.rmdir()
    eventually(lambda: world.served().models["loss"].ready == "yes")


def test_a_model_whose_spec_appears_is_served_without_a_restart(world: ManyModels) -> None:
    with world.calls("loss") as statuses:
        world.write_spec("newcomer")
        eventually(lambda: "newcomer" in world.served().models)
        assert world.predict("newcomer").status_code == 503
        version = world.register("newcomer")
        world.roll_out("newcomer", version)
        assert world.predict("newcomer").json()["model"] == "newcomer"
    assert set(statuses) == {200}
    assert "/models/newcomer/predict" in http.get(f"{world.service.url}/docs.json", timeout=60).json()["paths"]


def test_a_broken_spec_file_keeps_the_last_good_spec_and_says_so(world: ManyModels) -> None:
    path = world.settings.models_dir / "newcomer.yaml"
    good = path.read_text()
    path.write_text("label: [")
    problem = eventually(lambda: world.served().models["newcomer"].spec_problem)
    assert "newcomer.yaml" in problem
    assert world.predict("newcomer").status_code == 200
    (world.settings.models_dir / "mistaken.yaml").write_text("name: mistaken")
    eventually(lambda: "mistaken.yaml" in world.served().not_served.get("mistaken", ""))
    metrics = http.get(f"{world.service.url}/metrics", timeout=30).text
    assert 'perennial_spec_problem{model="newcomer"} 1.0' in metrics
    assert 'perennial_spec_problem{model="risk"} 0.0' in metrics
    path.write_text(good)
    eventually(lambda: world.served().models["newcomer"].spec_problem is None)
    (world.settings.models_dir / "mistaken.yaml").unlink()
    eventually(lambda: not world.served().not_served)
    for solved in ("newcomer", "mistaken"):
        line = f'perennial_spec_problem{{model="{solved}"}} 0.0'
        eventually(lambda: line in http.get(f"{world.service.url}/metrics", timeout=30).text)  # noqa: B023


def title(world: ManyModels, model: str) -> str:
    paths = http.get(f"{world.service.url}/docs.json", timeout=60).json()["paths"]
    found: str = paths[f"/models/{model}/predict"]["post"]["summary"]
    return found


def test_a_changed_spec_takes_effect_while_requests_are_answered(world: ManyModels) -> None:
    with world.calls("newcomer") as statuses:
        world.write_spec("newcomer", title="Another title")
        eventually(lambda: title(world, "newcomer") == "Another title: predict")
        answer = world.predict("newcomer").json()
        assert answer["model_version"] == world.champion("newcomer")
    assert set(statuses) == {200}
    lake = Lake(world.settings.lake, SOURCE, "newcomer")
    eventually(lambda: answer["prediction_id"] in {row["prediction_id"] for row in logged_rows(lake)})
    assert len(logged_rows(lake)) == len({row["prediction_id"] for row in logged_rows(lake)})


def test_a_changed_spec_takes_over_with_the_champion_of_that_moment_and_is_ready(world: ManyModels) -> None:
    before = world.champion("newcomer")
    assert before is not None
    version = world.register("newcomer", 0.5)
    for number in range(3):
        world.write_spec("newcomer", title=f"Title {number}")
        while title(world, "newcomer") != f"Title {number}: predict":
            for champion in (version, before):
                world.promote("newcomer", champion)
                for _ in range(5):
                    assert world.predict("newcomer").json()["model_version"] == champion
                    assert world.of("newcomer").ready == "yes"


def test_a_champion_keeps_its_decision_and_follows_the_key_of_the_groups(world: ManyModels) -> None:
    """docs/your-model.md, Changing a live model: `task.decision` and `rollout.sticky_by`."""
    champion, other = world.champion("newcomer"), world.register("newcomer", 0.5)
    decided = {"threshold", "decision"}
    before = {name: world.predict("newcomer").json()[name] for name in decided}
    registry = Registry(world.settings.tracking_uri)
    registry.set_alias("newcomer", "challenger", other)
    registry.set_traffic("newcomer", Desired(mode="canary", weight=50, stage="canary"))
    plan = {"timeout_seconds": 60, "stages": [{"mode": "full"}]}

    def groups(key: str) -> dict[str, set[int]]:
        """Which versions answer 20 requests of one customer, and 20 requests of one event."""
        same = {"customer_id": 1, "transaction_id": 1}
        return {
            name: {
                world.predict("newcomer", **same | {changing: number}).json()["model_version"] for number in range(20)
            }
            for name, changing in (("customer_id", "transaction_id"), ("transaction_id", "customer_id"))
        }

    for key in ("customer_id", "transaction_id"):
        decision = {"kind": "binary", "decision": {"threshold": 0.999}}
        world.write_spec("newcomer", title=f"By {key}", rollout={**plan, "sticky_by": key}, task=decision)
        eventually(lambda key=key: title(world, "newcomer") == f"By {key}: predict")
        eventually(lambda: world.of("newcomer").traffic.mode == "canary")
        seen = groups(key)
        assert len(seen[key]) == 1
        assert len(seen[next(name for name in seen if name != key)]) == 2
    registry.set_traffic("newcomer", Desired())
    registry.remove_alias("newcomer", "challenger")
    eventually(lambda: world.of("newcomer").traffic.mode == "full")
    assert world.champion("newcomer") == champion
    assert {name: world.predict("newcomer").json()[name] for name in decided} == before


def test_a_spec_with_which_no_version_can_serve_waits_for_one_that_can(world: ManyModels) -> None:
    before = world.champion("newcomer")
    world.write_spec("newcomer", "regression")
    problem = eventually(lambda: (p := world.served().models["newcomer"].spec_problem) and "refused" in p and p)
    assert "the one before is used" in problem
    assert "score" in world.predict("newcomer").json()
    assert world.champion("newcomer") == before
    version = world.register("newcomer")
    world.set_champion("newcomer", version)
    eventually(lambda: "value" in world.predict("newcomer").json())
    assert world.champion("newcomer") == version
    assert world.served().models["newcomer"].spec_problem is None


def test_a_model_whose_spec_is_removed_is_not_served_any_more(world: ManyModels) -> None:
    lake = Lake(world.settings.lake, SOURCE, "newcomer")
    with world.calls("loss") as statuses:
        last = world.predict("newcomer").json()["prediction_id"]
        (world.settings.models_dir / "newcomer.yaml").unlink()
        eventually(lambda: world.predict("newcomer").status_code == 404)
        assert "newcomer" not in world.served().models
        eventually(lambda: last in {row["prediction_id"] for row in logged_rows(lake)})
    assert set(statuses) == {200}
    assert world.service.ready()


def test_a_model_whose_spec_comes_back_is_served_again(world: ManyModels) -> None:
    world.write_spec("newcomer", "regression")
    eventually(lambda: world.predict("newcomer").status_code == 200)


def test_a_model_that_is_removed_for_good_leaves_the_others_as_they_are(world: ManyModels) -> None:
    before = world.champion("loss")
    with world.calls("loss") as statuses:
        for change in model_removal("newcomer", world.settings).changes:
            change.do()
        eventually(lambda: world.predict("newcomer").status_code == 404)
        # A model of this name does not begin with the old champion.
        world.write_spec("newcomer", "regression")
        eventually(lambda: world.predict("newcomer").status_code == 503)
    assert set(statuses) == {200}
    assert world.champion("loss") == before
    assert world.champion("newcomer") is None
    assert not Registry(world.settings.tracking_uri).state("newcomer").aliases
