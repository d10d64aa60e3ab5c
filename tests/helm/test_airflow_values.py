"""Airflow's values fit the chart `perennial`: names, rights, volumes, identity. The official chart is not at hand."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pkgutil import resolve_name
from typing import Any

import pytest
import yaml

from tests.helm.chart import HELM, Manifest, merged, named, of_kind, pods, render, values_file
from tests.helm.conftest import LOCAL

AIRFLOW: dict[str, Any] = yaml.safe_load((HELM / "airflow-values.yaml").read_text())
TRIAL: dict[str, Any] = merged(AIRFLOW, yaml.safe_load((HELM / "airflow-values-local.yaml").read_text()))


@pytest.fixture(scope="module")
def secrets() -> dict[str, dict[str, str]]:
    made = subprocess.run([HELM / "local-secrets.sh", "ml"], check=True, capture_output=True, text=True).stdout
    found = [manifest for manifest in yaml.safe_load_all(made) if manifest]
    assert {secret["metadata"]["namespace"] for secret in found} == {"ml"}
    return {secret["metadata"]["name"]: secret["stringData"] for secret in found}


@pytest.fixture(scope="module")
def trial() -> list[Manifest]:
    return render(LOCAL)


def test_airflow_takes_the_settings_and_credentials_of_the_chart(trial: list[Manifest]) -> None:
    sources = yaml.safe_load(AIRFLOW["extraEnvFrom"])
    assert named(trial, "ConfigMap", sources[0]["configMapRef"]["name"])
    assert sources[1]["secretRef"]["name"] == values_file("values-local.yaml")["credentials"]["existingSecret"]


def test_the_service_accounts_that_launch_steps_are_airflows(trial: list[Manifest]) -> None:
    """The official chart names them <release>-scheduler and <release>-triggerer, for a release called airflow."""
    (binding,) = of_kind(trial, "RoleBinding")
    assert {subject["name"] for subject in binding["subjects"]} == {"airflow-scheduler", "airflow-triggerer"}
    assert "serviceAccount" not in json.dumps(AIRFLOW)


def test_airflow_creates_no_pods_beside_itself() -> None:
    """The chart's role would let it, and every pod of a namespace may mount its Secrets. Tasks run in the scheduler."""
    assert AIRFLOW["executor"] == "LocalExecutor"
    assert AIRFLOW["allowPodLaunching"] is False
    assert AIRFLOW["apiServer"]["allowPodLogReading"] is False
    # Else the scheduler were a StatefulSet with a volume for each replica.
    assert AIRFLOW["workers"]["celery"]["persistence"]["enabled"] is False


def test_the_same_user_writes_the_shared_volume(trial: list[Manifest]) -> None:
    own = named(trial, "Deployment", "perennial-serving")["spec"]["template"]["spec"]["securityContext"]
    theirs = AIRFLOW["securityContexts"]["pod"]
    assert {key: own[key] for key in theirs} == theirs
    assert (AIRFLOW["uid"], AIRFLOW["gid"]) == (own["runAsUser"], own["runAsGroup"])


def test_the_trial_mounts_the_state_where_the_settings_say(trial: list[Manifest]) -> None:
    (volume,), (mount,) = TRIAL["volumes"], TRIAL["volumeMounts"]
    claim = volume["persistentVolumeClaim"]["claimName"]
    assert named(trial, "PersistentVolumeClaim", claim)
    assert mount["name"] == volume["name"]
    assert mount["mountPath"] == named(trial, "ConfigMap", "perennial-settings")["data"]["CT_HOME"]
    assert TRIAL["logs"]["persistence"]["existingClaim"] == claim


def test_every_container_is_restricted_and_says_what_it_needs() -> None:
    assert AIRFLOW["securityContexts"]["containers"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert AIRFLOW["securityContexts"]["pod"]["runAsNonRoot"] is True
    jobs = ("migrateDatabaseJob", "databaseCleanup")
    for part in ("apiServer", "scheduler", "dagProcessor", "triggerer", *jobs, "statsd"):
        assert {"requests", "limits"} <= TRIAL[part]["resources"].keys(), part
    # Of another image, with another user.
    exporter = AIRFLOW["statsd"]["securityContexts"]
    assert exporter["container"] == AIRFLOW["securityContexts"]["containers"]
    assert exporter["pod"]["runAsNonRoot"] is True
    assert exporter["pod"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_containers_that_fetch_dags_are_restricted() -> None:
    """git-sync runs beside Airflow's containers and has a context of its own; the pod's has no such fields."""
    example = yaml.safe_load((HELM / "gitops" / "production" / "airflow-git-sync.yaml").read_text())
    values = merged(AIRFLOW, example)
    sync = values["dags"]["gitSync"]
    context = {**values["securityContexts"]["pod"], **sync["securityContexts"]["container"]}
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {"requests", "limits"} <= sync["resources"].keys()


def test_the_logs_volume_is_of_a_class_that_several_nodes_can_mount() -> None:
    """The official chart claims it as ReadWriteMany, which the default class of most clusters does not offer."""
    production = HELM / "gitops" / "production"
    airflow = yaml.safe_load((production / "airflow.yaml").read_text())["logs"]["persistence"]
    assert airflow["storageClassName"]


def test_every_part_of_airflow_reaches_the_api_server() -> None:
    """With policies on and nobody named, the official chart lets nobody in: no task could report."""
    assert AIRFLOW["networkPolicies"]["enabled"] is True
    peers = AIRFLOW["apiServer"]["networkPolicy"]["ingress"]["from"]
    assert {"podSelector": {"matchLabels": {"tier": "airflow"}}} in peers


#: What chart 1.22 puts into the same list as `env` of the values, whatever the executor: its template
#: standard_airflow_environment (templates/_helpers.yaml), the workers' pod template, and the migration.
CHARTS_OWN = {
    "AIRFLOW_HOME",
    "AIRFLOW_CONN_AIRFLOW_DB",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__CELERY__CELERY_RESULT_BACKEND",
    "AIRFLOW__CELERY__RESULT_BACKEND",
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__CORE__SQL_ALCHEMY_CONN",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
    "AIRFLOW__ELASTICSEARCH__ELASTICSEARCH_HOST",
    "AIRFLOW__ELASTICSEARCH__HOST",
    "AIRFLOW__OPENSEARCH__HOST",
    "AIRFLOW__WEBSERVER__SECRET_KEY",
    "DUMB_INIT_SETSID",
    "KEDA_DB_CONN",
    "PYTHONUNBUFFERED",
}
#: Where it mounts volumes of its own.
CHARTS_MOUNTS = {f"{AIRFLOW['airflowHome']}/{name}" for name in ("airflow.cfg", "dags", "logs", "pod_templates")}


@pytest.mark.parametrize(
    "names",
    [
        ["airflow-values.yaml"],
        ["airflow-values.yaml", "airflow-values-local.yaml"],
        ["airflow-values.yaml", "gitops/production/airflow.yaml"],
        ["airflow-values.yaml", "gitops/production/airflow.yaml", "gitops/production/airflow-git-sync.yaml"],
    ],
    ids=lambda names: names[-1],
)
def test_no_list_has_a_key_of_the_charts_own_or_one_twice(names: list[str]) -> None:
    """Server-side apply refuses it: by Helm 4, and by Argo CD."""
    values = merged(*(yaml.safe_load((HELM / name).read_text()) for name in names))
    for path, variables in _lists(values, "env"):
        given = [each["name"] for each in variables]
        # With the Kubernetes executor it sets each once more, for its workers.
        given += [f"AIRFLOW__KUBERNETES_ENVIRONMENT_VARIABLES__{name}" for name in given]
        assert sorted(given) == sorted(set(given) - CHARTS_OWN), path
    everywhere = [mount["mountPath"] for mount in values.get("volumeMounts", [])]
    for path, mounts in _lists(values, "extraVolumeMounts"):
        paths = [*everywhere, *(mount["mountPath"] for mount in mounts)]
        assert sorted(paths) == sorted(set(paths) - CHARTS_MOUNTS), path
    volumes = [volume["name"] for volume in values.get("volumes", [])]
    for path, own in _lists(values, "extraVolumes"):
        both = [*volumes, *(volume["name"] for volume in own)]
        assert sorted(both) == sorted(set(both) - {"config", "dags", "logs"}), path


def _lists(values: Any, key: str, path: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Every list under `key` in the values, with its path."""
    for name, value in values.items() if isinstance(values, dict) else []:
        where = f"{path}.{name}"
        if name == key and isinstance(value, list):
            yield where, value
        yield from _lists(value, key, where)


def test_the_driver_of_airflows_database_is_in_the_image(secrets: dict[str, dict[str, str]]) -> None:
    from airflow.settings import _get_async_conn_uri_from_sync
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import create_async_engine

    uri = secrets["perennial-airflow"]["connection"]
    assert create_engine(uri).dialect.driver == "psycopg2"
    assert create_async_engine(_get_async_conn_uri_from_sync(uri)).dialect.driver == "asyncpg"


def test_no_secret_is_in_the_values() -> None:
    assert {AIRFLOW[key] for key in ("fernetKeySecretName", "apiSecretKeySecretName", "jwtSecretName")} == {
        "perennial-airflow"
    }
    assert AIRFLOW["data"] == {"metadataSecretName": "perennial-airflow"}
    assert not {"fernetKey", "apiSecretKey", "jwtSecret", "webserverSecretKey"} & AIRFLOW.keys()


def test_the_trials_secrets_are_all_that_is_named(trial: list[Manifest], secrets: dict[str, dict[str, str]]) -> None:
    text = json.dumps([pod for _, pod in pods(trial)])
    for name in ("perennial-postgresql", "perennial-redis", "perennial-credentials", "perennial-mlflow-login"):
        assert name in text
        assert name in secrets
    assert {"connection", "fernet-key", "api-secret-key", "jwt-secret", "admin-password"} == set(
        secrets["perennial-airflow"]
    )


def test_the_trials_passwords_agree_and_are_well_formed(secrets: dict[str, dict[str, str]]) -> None:
    from training.adapters.features.online_stores import online_store
    from training.settings import Settings

    url = secrets["perennial-credentials"]["CT_ONLINE_STORE"]
    store = online_store(Settings(online_store=url)).feast_settings()
    assert f"password={secrets['perennial-redis']['password']}" in store["connection_string"]
    assert store["connection_string"].startswith("perennial-redis:6379")
    login = secrets["perennial-mlflow-login"]
    assert login["steps-password"] == secrets["perennial-credentials"]["MLFLOW_TRACKING_PASSWORD"]
    assert {len(value) >= 12 for value in login.values()} == {True}
    assert len(set(login.values())) == len(login) == 4
    airflow = secrets["perennial-airflow"]
    password = secrets["perennial-postgresql"]["password"]
    assert airflow["connection"].endswith(f"//perennial:{password}@perennial-postgresql:5432/airflow")
    assert len(base64.urlsafe_b64decode(airflow["fernet-key"])) == 32
    assert len(airflow["jwt-secret"]) >= 64
    assert len(airflow["admin-password"]) >= 12


def test_people_log_in_by_a_manager_that_is_made_for_production() -> None:
    """With its tables, its roles and a first admin, in every values file."""
    from airflow.api_fastapi.auth.managers.base_auth_manager import BaseAuthManager
    from airflow.utils.db_manager import BaseDBManager

    for values in (AIRFLOW, TRIAL):
        config = values["config"]
        assert issubclass(resolve_name(config["core"]["auth_manager"]), BaseAuthManager)
        assert "SimpleAuthManager" not in json.dumps(values)
        assert issubclass(resolve_name(config["database"]["external_db_managers"]), BaseDBManager)
        job = values["migrateDatabaseJob"]
        (mount,), (volume,) = job["extraVolumeMounts"], job["extraVolumes"]
        (item,) = volume["secret"]["items"]
        assert volume["name"] == mount["name"]
        _, _, command = job["args"]
        assert command.startswith("airflow db migrate && ")
        assert command.endswith(
            f"python -m perennial_airflow.roles --admin-password-file {mount['mountPath']}/{item['path']}"
        )


def test_airflow_is_of_the_locks_version() -> None:
    from importlib.metadata import version

    assert AIRFLOW["airflowVersion"] == version("apache-airflow")


def test_the_configuration_is_airflows() -> None:
    """Each option is one that this Airflow, or its login, knows."""
    from airflow.configuration import conf
    from airflow.providers.fab.get_provider_info import get_provider_info

    described = get_provider_info()["config"] | conf.configuration_description
    known = {section: set(body["options"]) for section, body in described.items()}
    for section, options in AIRFLOW["config"].items():
        assert set(options) <= known[section], section
