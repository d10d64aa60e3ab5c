"""People answer requests for approval in a real Airflow: at its REST API and in its pages, with Chromium.

Real steps run, on a registry in which versions wait; nothing serves the models, so a rollout waits for no replica.
"""

import json
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from testing.airflow_server import ROOT, AirflowServer
from testing.browser import CHROMIUM, browser
from testing.http_client import http
from tests.steps.approval_place import ApprovalPlace
from tests.steps.monitored_model import SOURCE, START, land
from training.adapters.onnx_model import OnnxModel
from training.contract.base import Days
from training.contract.messages import FeaturesInputs
from training.steps import features

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(1500)]

#: The model of each test. The requests of `hasty` expire at once.
MODELS = ("careful", "picky", "busy", "hasty", "shown", "quick")
#: The model that is trained.
TRAINED = "trained"
USERS = ("admin", "op", "viewer")
#: A DAG that does what the end of a training run does.
REGISTERED = """
from airflow.sdk import DAG
from perennial_airflow.approvals import AskForApprovalOperator

with DAG("registered", schedule=None, default_args={"retries": 0}):
    about = {"version": 2, "ask": True, "superseded": [{"version": 1, "attempt": 1}]}
    AskForApprovalOperator(task_id="ask_for_approval", model="busy", about=about)
"""


class Approvals:
    """A running Airflow, and the models whose versions wait in it."""

    def __init__(self, server: AirflowServer, places: dict[str, ApprovalPlace]) -> None:
        self.server, self.places = server, places
        self.tokens = {user: self._token(user) for user in USERS}

    def _token(self, user: str) -> str:
        login = {"username": user, "password": user}
        answer = http.post(f"{self.server.url}/auth/token", json=login, timeout=60)
        return str(answer.raise_for_status().json()["access_token"])

    def ask(self, model: str, version: int = 1) -> None:
        """As the task `ask_for_approval` does."""
        run = {"dag_run_id": f"version-{version}", "logical_date": None, "conf": {"version": version, "attempt": 1}}
        self.server.api.post(f"/dags/{model}_approval/dagRuns", json=run).raise_for_status()

    def task(self, model: str, task: str, run: str = "version-1") -> dict[str, Any]:
        found = self.server.api.get(f"/dags/{model}_approval/dagRuns/{run}/taskInstances/{task}")
        return {"state": None} if found.status_code == 404 else found.raise_for_status().json()

    def wait(self, model: str, task: str, state: str, run: str = "version-1") -> None:
        self.server.until(lambda: self.task(model, task, run)["state"] == state)

    def answer(self, user: str, model: str, option: str, comment: str = "", run: str = "version-1") -> httpx.Response:
        url = f"{self.server.url}/api/v2/dags/{model}_approval/dagRuns/{run}/taskInstances/approve/-1/hitlDetails"
        said = {"chosen_options": [option], "params_input": {"comment": comment}}
        headers = {"Authorization": f"Bearer {self.tokens[user]}"}
        return http.patch(url, json=said, headers=headers, timeout=60)

    def decide(self, user: str, model: str, option: str, comment: str = "", run: str = "version-1") -> None:
        """Answer. Airflow asks again when it did not know yet that the task was waiting."""

        def decided() -> bool:
            state = self.task(model, "approve", run)["state"]
            if state == "awaiting_input":
                assert self.answer(user, model, option, comment, run).status_code in (200, 409)
            return bool(state == "success")

        self.server.until(decided)

    def asked(self, model: str) -> list[str]:
        """The runs whose request Airflow shows as open."""
        params = {"response_received": False, "state": "awaiting_input"}
        found = self.server.api.get(f"/dags/{model}_approval/dagRuns/~/hitlDetails", params=params)
        details = found.raise_for_status().json()["hitl_details"]
        return [detail["task_instance"]["dag_run_id"] for detail in details]


def with_data(place: ApprovalPlace) -> ApprovalPlace:
    """Four weeks of payments in the lake, and a spec that is quick to train. A person approves every version."""
    file = place.settings.models_dir / f"{place.model}.yaml"
    spec = yaml.safe_load(file.read_text())
    spec["training"] = {"window_days": 7, "holdout_days": 5, "minimum_class_rows": 5}
    spec["training"]["estimators"] = {"logistic_regression": {}}
    spec["evaluation"] |= {"limits": {"average_precision": 0.01}}
    file.write_text(yaml.safe_dump(spec))
    days = Days(start=START, end=START + timedelta(days=28))
    versions = land(place.settings, days).versions("events", "labels")
    features.run(FeaturesInputs(source=SOURCE, days=days, table_versions=versions), place.settings)
    return place


@pytest.fixture(scope="module")
def approvals(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[Approvals]:
    home = tmp_path_factory.mktemp("airflow")
    shutil.copy(mlflow_database, home)
    places = {model: ApprovalPlace(home, model) for model in MODELS}
    places["picky"].spec(when=["leakage"], assignees=["op"])
    places["hasty"].spec(when="always", timeout_hours=0.0001)
    for model, place in places.items():
        place.register(None, *(["leakage"] if model == "picky" else []))
    place = places["careful"]
    places[TRAINED] = with_data(ApprovalPlace(home, TRAINED))
    dags = home / "dags"
    dags.mkdir()
    for file in ("approval.py", "train.py"):
        (dags / file).symlink_to(ROOT / "dags" / file)
    (dags / "registered.py").write_text(REGISTERED)
    environment = {
        "CT_HOME": str(home / "home"),
        "CT_TRACKING_URI": place.settings.tracking_uri,
        "CT_MODELS_DIR": str(place.settings.models_dir),
        "CT_SERVING_URLS": "",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__EXECUTOR": "perennial_airflow.executor.LocalExecutor",  # As in deploy/airflow.env.
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{user}" for user in USERS),
    }
    server = AirflowServer(home, environment=environment)
    (home / "passwords.json").write_text(json.dumps({user: user for user in USERS}))
    with server.running(triggerer=False):
        expected = {"registered", f"{TRAINED}_train", *(f"{model}_approval" for model in places)}
        server.until(lambda: {dag["dag_id"] for dag in server.api.get("/dags").json().get("dags", ())} >= expected)
        yield Approvals(server, places)


@pytest.mark.long
def test_an_answer_at_the_rest_api_lets_the_rollout_go_on(approvals: Approvals) -> None:
    place = approvals.places["careful"]
    approvals.ask("careful")
    approvals.wait("careful", "approve", "awaiting_input")
    assert approvals.answer("viewer", "careful", "Approve").status_code == 403
    assert place.aliases() == {"challenger": 1}
    approvals.decide("admin", "careful", "Approve", "checked")
    assert approvals.answer("op", "careful", "Reject").status_code == 409
    approvals.wait("careful", "rollout", "success")
    assert place.aliases() == {"champion": 1}
    assert place.entries() == [(1, "asked"), (1, "approved")]
    assert (place.tags(1)["approval.by"], place.tags(1)["approval.comment"]) == ("admin", "checked")
    # The whole run again, as by `airflow tasks clear`: nobody is asked, and nothing changes.
    everything = {"dry_run": False, "dag_run_id": "version-1", "only_failed": False, "reset_dag_runs": True}
    approvals.server.api.post("/dags/careful_approval/clearTaskInstances", json=everything).raise_for_status()
    approvals.server.until(lambda: approvals.task("careful", "rollout")["try_number"] == 2)
    approvals.wait("careful", "rollout", "success")
    assert approvals.task("careful", "approve")["state"] == "skipped"
    assert place.entries() == [(1, "asked"), (1, "approved")]


def test_a_training_run_asks_and_the_version_serves_after_the_answer(approvals: Approvals) -> None:
    """From the request to train to the champion, with the DAGs that every model has and real steps."""
    place, server = approvals.places[TRAINED], approvals.server
    server.api.post(f"/dags/{TRAINED}_train/dagRuns", json={"logical_date": None}).raise_for_status()
    server.until(lambda: [run["state"] for run in server.runs(f"{TRAINED}_train")] in (["success"], ["failed"]))
    (run,) = server.runs(f"{TRAINED}_train")
    tasks = server.api.get(f"/dags/{TRAINED}_train/dagRuns/{run['dag_run_id']}/taskInstances").json()
    states = {task["task_id"]: task["state"] for task in tasks["task_instances"]}
    assert states == dict.fromkeys(
        ["estimators", "decide_retraining", "dataset", "train", "evaluate", "register", "ask_for_approval"], "success"
    ) | {"rollout": "skipped", "release_request": "skipped"}
    assert place.aliases() == {"challenger": 1}

    approvals.wait(TRAINED, "approve", "awaiting_input")
    assert approvals.asked(TRAINED) == ["version-1"]
    approvals.decide("op", TRAINED, "Approve", "looked at it")
    approvals.wait(TRAINED, "rollout", "success")

    assert place.aliases() == {"champion": 1}
    assert place.entries() == [(1, "asked"), (1, "approved")]
    assert place.tags(1)["approval.by"] == "op"
    version = place.registry.get(TRAINED, 1)
    (artifact,) = place.settings.home.glob(f"work/{TRAINED}/artifacts/*")
    assert OnnxModel.load(artifact).metadata.digest == version.digest


@pytest.mark.long
def test_a_negative_verdict_needs_a_comment_and_only_assignees_are_let_in(approvals: Approvals) -> None:
    place = approvals.places["picky"]
    approvals.ask("picky")
    approvals.wait("picky", "approve", "awaiting_input")
    assert approvals.answer("admin", "picky", "Approve", "I may not").status_code == 403
    approvals.decide("op", "picky", "Approve")
    again = "version-1-attempt-2"
    approvals.wait("picky", "approve", "awaiting_input", again)
    assert approvals.task("picky", "rollout")["state"] == "skipped"
    approvals.decide("op", "picky", "Reject", "still too good", again)
    approvals.wait("picky", "rollout", "skipped", again)
    approvals.server.until(lambda: bool(approvals.server.runs("picky_approval")[-1]["state"] == "success"))
    assert place.entries() == [(1, "asked"), (1, "refused"), (1, "rejected")]
    assert place.aliases() == {}


@pytest.mark.long
def test_an_answer_in_the_moment_of_the_question_is_not_lost(approvals: Approvals) -> None:
    """The process that has asked still runs then. Airflow used to take its end for that of the task."""
    place = approvals.places["quick"]
    approvals.ask("quick")
    approvals.server.until(lambda: approvals.answer("admin", "quick", "Approve").status_code == 200)
    approvals.server.until(lambda: approvals.task("quick", "rollout")["state"] in ("success", "skipped", "failed"))
    assert approvals.task("quick", "approve")["try_number"] == 1
    assert place.entries() == [(1, "asked"), (1, "approved")]
    assert place.aliases() == {"champion": 1}


@pytest.mark.long
def test_without_an_answer_in_time_a_version_is_rejected(approvals: Approvals) -> None:
    place = approvals.places["hasty"]
    approvals.ask("hasty")
    approvals.wait("hasty", "rollout", "skipped")
    assert place.entries() == [(1, "asked"), (1, "expired")]
    assert place.aliases() == {}


@pytest.mark.long
def test_a_newer_version_closes_the_older_request_in_airflow_too(approvals: Approvals) -> None:
    place = approvals.places["busy"]
    approvals.ask("busy")
    approvals.wait("busy", "approve", "awaiting_input")
    # A pending request keeps no newer version from being registered and asked about.
    newer = place.register()
    assert [each.version for each in newer.superseded] == [1]
    approvals.server.api.post("/dags/registered/dagRuns", json={"logical_date": None}).raise_for_status()
    approvals.wait("busy", "approve", "awaiting_input", "version-2")
    approvals.wait("busy", "rollout", "skipped")
    assert approvals.task("busy", "approve")["state"] == "skipped"
    assert approvals.asked("busy") == ["version-2"]
    approvals.answer("admin", "busy", "Approve")
    assert approvals.task("busy", "approve")["state"] == "skipped"
    assert place.entries() == [(1, "asked"), (2, "asked"), (1, "superseded")]
    approvals.decide("admin", "busy", "Approve", run="version-2")
    approvals.wait("busy", "rollout", "success", "version-2")
    assert place.aliases() == {"champion": 2}


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_a_click_on_approve_in_the_pages_of_airflow_lets_the_rollout_go_on(
    approvals: Approvals, tmp_path: Path
) -> None:
    place, run = approvals.places["shown"], "dags/shown_approval/runs/version-1"
    approvals.ask("shown")
    approvals.wait("shown", "approve", "awaiting_input")
    with browser() as page:
        page.size(1280, 900)
        page.cookies(approvals.server.url, {"_token": approvals.tokens["op"]})
        approve = "document.querySelector('[data-testid=\"hitl-option-Approve\"]')"
        page.open(f"{approvals.server.url}/{run}/tasks/approve/required_actions", f"{approve}?.disabled === false")
        text = str(page.run("document.body.innerText"))
        assert "Shown: may version 1 serve?" in text
        assert "a person approves every version of this model" in text
        assert "average_precision (decides)" in text
        evidence = f"{approvals.server.url}/perennial/models/shown/reports/evidence/1/index.html"
        links = page.run("Array.from(document.links).map(link => link.href)")
        assert evidence in links
        page.run("document.querySelector('[name=element_comment]').focus()")
        page.call("Input.insertText", text="Checked on last week's events.")
        page.screenshot(tmp_path / "approval.png")
        page.run(f"{approve}.click()")
        approvals.wait("shown", "rollout", "success")
        page.open(f"{approvals.server.url}/{run}", "document.body.innerText.includes('rollout')")
        page.screenshot(tmp_path / "approved.png")
    assert place.aliases() == {"champion": 1}
    assert place.tags(1)["approval.by"] == "op"
    assert place.tags(1)["approval.comment"] == "Checked on last week's events."
