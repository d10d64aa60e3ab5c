"""MLflow and the trial's databases: passwords by reference, names that are answered to, tables made once."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import make_url

from testing.ports import free_port
from testing.waiting import eventually
from tests.cases import others_long
from tests.helm.chart import (
    NAMESPACE,
    PRODUCTION,
    Manifest,
    environment,
    merged,
    named,
    nested,
    of_kind,
    pods,
    render,
)
from tests.helm.conftest import LOCAL, MATRIX


def test_passwords_are_in_no_manifest_but_by_reference() -> None:
    for values in (PRODUCTION, LOCAL):
        (container,) = named(render(values), "Deployment", "perennial-mlflow")["spec"]["template"]["spec"]["containers"]
        assert not any("postgresql://" in argument for argument in container["args"])
        env = environment(container)
        uri = env["MLFLOW_BACKEND_STORE_URI"]
        if values is PRODUCTION:
            assert uri == {"secretKeyRef": {"name": "mlflow-database", "key": "uri"}}
        else:
            assert "$(POSTGRES_PASSWORD)@" in uri
            names = [each["name"] for each in container["env"]]
            assert names.index("POSTGRES_PASSWORD") < names.index("MLFLOW_BACKEND_STORE_URI"), "expanded in order"
            assert env["POSTGRES_PASSWORD"] == {"secretKeyRef": {"name": "perennial-postgresql", "key": "password"}}


@pytest.mark.parametrize("scheme", others_long(["postgresql+psycopg2", "postgresql", "postgres"]))
@pytest.mark.parametrize("values", [LOCAL, PRODUCTION, MATRIX["everything"]], ids=["local", "production", "everything"])
def test_mlflow_has_the_driver_that_its_database_needs(values: Manifest, scheme: str, tmp_path: Path) -> None:
    """The containers' own commands, with a program in the place of Python that says what it was given."""
    uri = f"{scheme}://user:p%40ss@database:5432/mlflow?sslmode=require"
    program = '#!/bin/sh\nfor said in "$MLFLOW_BACKEND_STORE_URI" "$@"; do printf "%s\\0" "$said"; done\n'
    (tmp_path / "python").write_text(program)
    (tmp_path / "python").chmod(0o755)
    manifests = render(values)
    owners = [named(manifests, "Deployment", "perennial-mlflow"), named(manifests, "Job", "perennial-migrate")]
    for owner in owners:
        (container,) = owner["spec"]["template"]["spec"]["containers"]
        given = environment(container)["MLFLOW_BACKEND_STORE_URI"]
        env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        # The Secret's, which a user fills, or the trial's own.
        env["MLFLOW_BACKEND_STORE_URI"] = given if isinstance(given, str) else uri
        command = [*container["command"], *container.get("args", [])]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        used, *arguments = done.stdout.split("\0")[:-1]
        assert make_url(used).get_dialect().driver == "psycopg2"  # As MLflow loads it.
        assert used.partition("://")[2] == env["MLFLOW_BACKEND_STORE_URI"].partition("://")[2]
        assert not [argument for argument in arguments if "@" in argument], "a password in a command line"
        if "args" in container:
            assert arguments == ["/opt/mlflow/login.py", "serve", *container["args"]]


def test_mlflow_needs_a_login_and_each_part_has_its_own() -> None:
    for values, secret in ((merged(PRODUCTION, nested("hooks.codeChange.enabled", True)), "mlflow-login"),
                           (LOCAL, "perennial-mlflow-login")):  # fmt: skip
        release = render(values)
        found = {name: environment(pod["spec"]["containers"][0]) for name, pod in pods(release)}
        login = {
            name: env["MLFLOW_TRACKING_PASSWORD"] for name, env in found.items() if "MLFLOW_TRACKING_PASSWORD" in env
        }
        assert found["perennial-serving"]["MLFLOW_TRACKING_USERNAME"] == "serving"
        assert login.pop("perennial-serving") == {"secretKeyRef": {"name": secret, "key": "serving-password"}}
        for name, password in login.items():
            assert (name, password["secretKeyRef"]["key"]) == ("perennial-code-change", "steps-password")
            assert found[name]["MLFLOW_TRACKING_USERNAME"] == "steps"
        assert {name for name, env in found.items() if "MLFLOW_AUTH_ADMIN_PASSWORD" in env} == {"perennial-mlflow"}
        assert named(release, "ConfigMap", "perennial-settings")["data"]["MLFLOW_TRACKING_USERNAME"] == "steps"


def test_mlflow_without_a_login_is_a_choice() -> None:
    release = render(merged(PRODUCTION, nested("mlflow.login", {"enabled": False, "existingSecret": ""})))
    text = json.dumps(release)
    assert "exec mlflow server" in text
    assert "login" not in text
    assert "MLFLOW_TRACKING_USERNAME" not in text


def test_the_names_mlflow_answers_to_are_those_it_is_called_by(production: list[Manifest]) -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    (container,) = named(production, "Deployment", "perennial-mlflow")["spec"]["template"]["spec"]["containers"]
    (allowed,) = [a.partition("=")[2].split(",") for a in container["args"] if a.startswith("--allowed-hosts=")]
    called = named(production, "ConfigMap", "perennial-settings")["data"]["CT_TRACKING_URI"].removeprefix("http://")
    assert is_allowed_host_header(allowed, called)
    assert is_allowed_host_header(allowed, f"perennial-mlflow.{NAMESPACE}.svc.cluster.local:5000")
    assert not is_allowed_host_header(allowed, "evil.example:5000")


def test_links_to_mlflow_lead_where_people_open_it(production: list[Manifest], everything: list[Manifest]) -> None:
    assert named(everything, "ConfigMap", "perennial-settings")["data"]["CT_MLFLOW_URL"] == "https://mlflow.example"
    assert "CT_MLFLOW_URL" not in named(production, "ConfigMap", "perennial-settings")["data"]


def test_the_trial_database_serves_mlflow_and_airflow() -> None:
    manifests = render(LOCAL)
    stateful = named(manifests, "StatefulSet", "perennial-postgresql")["spec"]["template"]["spec"]
    env = environment(stateful["containers"][0])
    assert (env["POSTGRES_USER"], env["POSTGRES_DB"]) == ("perennial", "mlflow")
    assert "CREATE DATABASE airflow" in named(manifests, "ConfigMap", "perennial-postgresql")["data"]["databases.sql"]


@pytest.mark.redis
def test_the_trials_redis_asks_for_its_password(tmp_path: Path) -> None:
    """The container's own command and probe, with a real Redis in folders of the test."""
    server, client = shutil.which("redis-server"), shutil.which("redis-cli")
    if server is None or client is None:
        pytest.skip("redis-server is not on the PATH")
    (container,) = named(render(LOCAL), "StatefulSet", "perennial-redis")["spec"]["template"]["spec"]["containers"]
    port = free_port()
    folders = {"/run/redis": str(tmp_path), "dir /data": f"dir {tmp_path}\\nport {port}\\nbind 127.0.0.1"}
    command = container["command"][-1]
    for mounted, folder in folders.items():
        assert mounted in command
        command = command.replace(mounted, folder)
    env = {"REDIS_PASSWORD": "secret", "PATH": os.environ["PATH"]}
    process = subprocess.Popen(["sh", "-c", command], env=env, stdout=subprocess.DEVNULL)
    try:
        probe = container["readinessProbe"]["exec"]["command"][-1].replace("redis-cli", f"redis-cli -p {port}")
        eventually(lambda: subprocess.run(["sh", "-c", probe], env=env, capture_output=True).returncode == 0)
        refused = subprocess.run([client, "-p", str(port), "ping"], capture_output=True, text=True)
        assert "NOAUTH" in refused.stdout
        assert (tmp_path / "redis.conf").stat().st_mode & 0o077 == 0
    finally:
        process.terminate()
        process.wait(300)


def test_what_is_kept_outlives_the_release() -> None:
    claims = of_kind(render(LOCAL), "PersistentVolumeClaim")
    assert {claim["metadata"]["name"] for claim in claims} == {"perennial-state", "perennial-mlflow"}
    assert all(claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for claim in claims)


def test_hooks_come_when_what_they_need_is_there(everything: list[Manifest]) -> None:
    def when(manifests: list[Manifest]) -> dict[str, str]:
        jobs = of_kind(manifests, "Job")
        return {
            j["metadata"]["labels"]["app.kubernetes.io/component"]: j["metadata"]["annotations"]["helm.sh/hook"]
            for j in jobs
        }

    assert when(everything) == {
        "migrate": "pre-install,pre-upgrade",
        "feature-definitions": "post-install,post-upgrade,post-rollback",
        "code-change": "post-upgrade",
    }
    assert when(render(LOCAL))["migrate"] == "pre-upgrade", "the release's own database comes with the release"
    for job in of_kind(everything, "Job"):
        before = job["metadata"]["annotations"]["helm.sh/hook"].startswith("pre-install")
        spec = job["spec"]["template"]["spec"]
        assert spec["serviceAccountName"] == job["metadata"]["name"]
        assert not before or "priorityClassName" not in spec, "not there yet"
        assert not before or not any(
            "configMapRef" in each for c in spec["containers"] for each in c.get("envFrom", [])
        )


@pytest.mark.long
def test_the_migration_makes_tables_and_finds_them_made(everything: list[Manifest], tmp_path: Path) -> None:
    """The hook's own command, on SQLite: on an empty database, and where there is nothing to do."""
    (container,) = named(everything, "Job", "perennial-migrate")["spec"]["template"]["spec"]["containers"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    assert not [word for word in container["command"] if "$MLFLOW_BACKEND_STORE_URI" in word.rpartition(";; esac")[2]]
    env = {"PATH": path, "HOME": str(tmp_path), "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    versions = []
    for _ in range(2):
        done = subprocess.run(container["command"], env=env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
            versions.append(database.execute("SELECT version_num FROM alembic_version").fetchall())
    assert len(versions[0]) == 1
    assert versions[0] == versions[1]


def test_the_modules_that_hooks_run_are_there(everything: list[Manifest]) -> None:
    commands = [job["spec"]["template"]["spec"]["containers"][0]["command"] for job in of_kind(everything, "Job")]
    modules = [command[2] for command in commands if command[:2] == ["python", "-m"]]
    assert len(modules) == 2
    assert all(find_spec(module) for module in modules)
