"""The login of a cluster enforces the roles: at the REST API of a real Airflow, with users made by command line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from testing.airflow_server import AIRFLOW, ROOT, AirflowServer
from testing.browser import CHROMIUM, browser
from testing.http_client import http
from testing.model_life import ModelLife
from training.settings import Settings

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(1500)]

#: Airflow's cookie with the login.
COOKIE = "_token"
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
#: The DAGs that the tests start or look for.
PARSED = {"card_fraud_train", "card_fraud_rollback", "flight_delay_train", "flight_delay_rollback"}
PARSED |= {"flight_outcome_train", "flights_data", "flight_delay_approval"}
USERS = {
    "viewer": ["Viewer"],
    "planner": ["team:network-planning"],
    "releaser": ["team:network-planning", "release:network-planning"],
}


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    """With the login of a cluster, and a user of each kind. No scheduler: nothing has to run."""
    home = tmp_path_factory.mktemp("airflow")
    server = AirflowServer(home, environment={"AIRFLOW__CORE__AUTH_MANAGER": FAB})
    subprocess.run([AIRFLOW, "db", "migrate"], env=server.env, check=True, capture_output=True)
    (home / "admin-password").write_text("admin\n")
    _set_roles(server, "--admin-password-file", str(home / "admin-password"))
    for user, roles in USERS.items():
        _make_user(server, user, roles)
    server.start("api-server")
    try:
        server.log_in()
        server.start("dag-processor")
        server.until(lambda: _dags(server.api) >= PARSED)
        yield server
    finally:
        for name in list(server.processes):
            server.kill(name)


def _set_roles(server: AirflowServer, *arguments: str) -> str:
    """As the migration of a deployment does (helm/airflow-values.yaml)."""
    paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}"}
    command = [sys.executable, "-m", "perennial_airflow.roles", *arguments]
    done = subprocess.run(command, env=server.env | paths, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _make_user(server: AirflowServer, name: str, roles: list[str]) -> None:
    """By Airflow's command line, which takes one role, and adds others."""
    identity = ["--firstname", name, "--lastname", "User", "--email", f"{name}@localhost", "--password", name]
    subprocess.run(
        [AIRFLOW, "users", "create", "--username", name, *identity, "--role", roles[0]],
        env=server.env,
        check=True,
        capture_output=True,
    )
    for role in roles[1:]:
        command = [AIRFLOW, "users", "add-role", "--username", name, "--role", role]
        subprocess.run(command, env=server.env, check=True, capture_output=True)


def _as(server: AirflowServer, user: str) -> httpx.Client:
    login = {"username": user, "password": user}
    token = http.post(f"{server.url}/auth/token", json=login, timeout=30).raise_for_status().json()["access_token"]
    return httpx.Client(base_url=f"{server.url}/api/v2", headers={"Authorization": f"Bearer {token}"}, timeout=60)


def _dags(api: httpx.Client) -> set[str]:
    return {dag["dag_id"] for dag in api.get("/dags", params={"limit": 500}).raise_for_status().json()["dags"]}


def _start(api: httpx.Client, dag_id: str, **conf: Any) -> httpx.Response:
    return api.post(f"/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf})


def test_nobody_gets_in_without_a_login(airflow: AirflowServer) -> None:
    assert http.get(f"{airflow.url}/api/v2/dags", timeout=30).status_code == 401
    assert b"password" in http.get(f"{airflow.url}/auth/login/", timeout=60).raise_for_status().content
    wrong = {"username": "admin", "password": "wrong"}
    assert http.post(f"{airflow.url}/auth/token", json=wrong, timeout=30).status_code == 401


def test_a_viewer_sees_all_and_starts_nothing(airflow: AirflowServer) -> None:
    with _as(airflow, "viewer") as api:
        assert {"card_fraud_train", "flight_delay_train", "flights_data"} <= _dags(api)
        for dag in ("flight_delay_train", "flight_delay_rollback", "flights_data"):
            assert _start(api, dag).status_code == 403
        assert _start(api, "flight_delay_train", force=True).status_code == 403
        assert api.patch("/dags/flight_delay_train", json={"is_paused": True}).status_code == 403
        assert api.post("/assets/events", json={"asset_id": 1}).status_code == 403


def test_an_operator_runs_the_dags_of_the_team_and_sees_no_others(airflow: AirflowServer) -> None:
    with _as(airflow, "planner") as api:
        seen = _dags(api)
        assert {"flight_delay_train", "flight_outcome_train", "flight_delay_rollback"} <= seen
        assert not any(dag.startswith("card_") for dag in seen)
        started = _start(api, "flight_delay_train").raise_for_status().json()
        assert started["triggering_user_name"] == "planner"
        assert _start(api, "card_fraud_train").status_code == 403
        assert api.get("/dags/card_fraud_train/dagRuns").status_code == 403
        assert api.post("/assets/events", json={"asset_id": 1}).status_code == 403
        for path in ("/connections", "/variables", "/config"):
            assert api.get(path).status_code == 403, path


def test_a_rollback_needs_a_role_of_its_own(airflow: AirflowServer) -> None:
    with _as(airflow, "planner") as api:
        assert _start(api, "flight_delay_rollback", reason="x").status_code == 403
    with _as(airflow, "releaser") as api:
        started = _start(api, "flight_delay_rollback", reason="x").raise_for_status().json()
        assert started["triggering_user_name"] == "releaser"
        assert _start(api, "card_fraud_rollback", reason="x").status_code == 403


def test_an_approval_needs_that_role_too(airflow: AirflowServer) -> None:
    task = "/dags/flight_delay_approval/dagRuns/version-1/taskInstances/approve/-1/hitlDetails"
    answer = {"chosen_options": ["Approve"], "params_input": {}}
    for user, status in (("viewer", 403), ("planner", 403), ("releaser", 404)):
        with _as(airflow, user) as api:
            assert api.get("/dags/flight_delay_approval/dagRuns").status_code == 200, user
            # There is no such request: whoever may answer learns that.
            assert api.patch(task, json=answer).status_code == status, user


@pytest.mark.long
def test_a_later_deployment_takes_back_what_somebody_added_and_leaves_users_alone(airflow: AirflowServer) -> None:
    added = ["roles", "add-perms", "team:network-planning", "--resource", "DAGs", "--action", "can_edit"]
    subprocess.run([AIRFLOW, *added], env=airflow.env, check=True, capture_output=True)
    (airflow.home / "admin-password").write_text("another\n")
    _set_roles(airflow, "--admin-password-file", str(airflow.home / "admin-password"))
    listed = subprocess.run(
        [AIRFLOW, "roles", "list", "--permission", "--output", "json"],
        env=airflow.env,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # Airflow's own warnings come first.
    found = json.loads(listed.strip().splitlines()[-1])
    rows = [row for row in found if row["name"] == "team:network-planning"]
    assert {row["action"] for row in rows if row["resource"] == "DAGs"} == {"menu_access"}
    _as(airflow, "admin").close()
    _as(airflow, "planner").close()


# --- the pages about models (plugins/perennial_pages.py) ---


@pytest.fixture(scope="module")
def lives(airflow: AirflowServer) -> AirflowServer:
    """A server with models of two teams that have run for some weeks."""
    settings = Settings(home=Path(airflow.env["CT_HOME"]))
    for seed, (model, source, title, owner) in enumerate(
        (
            ("card_fraud", "card_payments", "Card fraud", "payments-ml"),
            ("flight_delay", "flights", "Flight delay", "network-planning"),
        )
    ):
        ModelLife(settings, model, source, title=title, owner=owner, weeks=12 - 4 * seed, seed=seed).write()
    airflow.until(lambda: _dags(airflow.api) >= {"card_fraud_monitor", "flight_delay_monitor", "card_payments_data"})
    return airflow


def _pages(server: AirflowServer, user: str) -> httpx.Client:
    """A browser of somebody who has logged in: it has the cookie."""
    with _as(server, user) as api:
        token = api.headers["authorization"].removeprefix("Bearer ")
    return httpx.Client(base_url=f"{server.url}/perennial", cookies={COOKIE: token}, timeout=60)


@pytest.mark.long
def test_pages_are_not_shown_without_a_login(lives: AirflowServer) -> None:
    report = "/models/card_fraud/reports/evidence/1/index.html"
    for path in ("/", "/models/card_fraud", report, "/static/pages.js", "/dags/card_fraud_train"):
        url = f"{lives.url}/perennial{path}"
        assert http.get(url, timeout=60).status_code == 401, path
        assert http.get(url, headers={"Authorization": "Bearer wrong"}, timeout=60).status_code in (401, 403), path
        page = http.get(url, headers={"Accept": "text/html"}, timeout=60, follow_redirects=False)
        assert page.is_redirect, path
        assert page.headers["location"].startswith((f"{lives.url}/auth/login", "/auth/login")), path
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert http.get(f"{lives.url}/perennial{path}", timeout=60).status_code in (401, 404), path


@pytest.mark.long
def test_a_viewer_reads_the_pages_of_all_models(lives: AirflowServer) -> None:
    with _pages(lives, "viewer") as pages:
        overview = pages.get("/").raise_for_status().text
        assert "Card fraud" in overview
        assert "Flight delay" in overview
        assert "Promote: xgboost" in pages.get("/models/card_fraud").raise_for_status().text
        assert pages.get("/models/card_fraud/reports/evidence/1/index.html").is_success
        assert pages.post("/").status_code == 405


@pytest.mark.long
def test_a_team_sees_the_pages_of_its_models_and_no_others(lives: AirflowServer) -> None:
    with _pages(lives, "planner") as pages:
        overview = pages.get("/").raise_for_status().text
        assert "Flight delay" in overview
        assert "Card fraud" not in overview
        # The source flights is another team's.
        assert "so its data is not shown" in pages.get("/models/flight_delay").raise_for_status().text
        for path in ("/models/card_fraud", "/models/card_fraud/reports/evidence/1/index.html", "/models/nothing"):
            assert pages.get(path).status_code == 404, path
    with _as(lives, "planner") as api:
        plugins = api.get("/plugins", params={"limit": 100}).raise_for_status().json()["plugins"]
        views = [view for plugin in plugins for view in plugin["external_views"]]
        assert {(view["name"], view["destination"]) for view in views} >= {("Models", "nav"), ("Model", "dag")}


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="There is no Chromium: the pages are not drawn (apt-get install chromium)")
def test_a_browser_draws_the_pages_and_the_reports_in_a_sandbox(lives: AirflowServer, tmp_path: Path) -> None:
    """PERENNIAL_SCREENSHOTS=docs/images keeps the pictures of the docs."""
    pictures = Path(os.environ.get("PERENNIAL_SCREENSHOTS") or tmp_path)
    drawn = "document.querySelectorAll('[data-figure] .main-svg').length >= 4"
    with _pages(lives, "admin") as pages, browser() as tab:
        tab.cookies(lives.url, dict(pages.cookies))
        tab.size(1360, 430)
        tab.open(f"{lives.url}/perennial/", "document.querySelectorAll('tbody tr').length >= 2")
        tab.screenshot(pictures / "models-overview.png")
        tab.size(1360, 1900)
        for scheme, picture in (("dark", tmp_path / "dark.png"), ("light", pictures / "model-life.png")):
            tab.colors(scheme)
            tab.open(f"{lives.url}/perennial/models/card_fraud", drawn)
            tab.screenshot(picture)
        assert tab.problems() == []
        asked = {url for url in tab.requested() if url.startswith("http")}
        assert {url for url in asked if not url.startswith(f"{lives.url}/perennial/")} == set()
        # Its script runs, without the cookie and without an origin.
        tab.open(f"{lives.url}/perennial/models/card_fraud/reports/evidence/1/index.html", "document.title === 'ran'")
        assert tab.run("self.origin") == "null"
        assert tab.run(f"fetch('{lives.url}/api/v2/dags').then(() => 'reached', () => 'refused')") == "refused"
        tab.size(1400, 800)
        framed = (
            "document.querySelector('iframe')?.contentDocument?.querySelectorAll('[data-figure] .main-svg').length >= 4"
        )
        tab.open(f"{lives.url}/dags/card_fraud_monitor/plugin/perennial_model", framed)
        tab.screenshot(pictures / "model-in-airflow.png")
