"""The login of a cluster enforces the roles: at the REST API of a real Airflow, with users made by command line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from testing.airflow_server import AIRFLOW, ROOT, AirflowServer
from testing.http_client import http

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(900)]

FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
#: The DAGs that the tests start or look for.
PARSED = {"card_fraud_train", "card_fraud_rollback", "flight_delay_train", "flight_delay_rollback"}
PARSED |= {"flight_outcome_train", "flights_data"}
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
