"""Airflow's values fit the chart `perennial`: names, rights, volumes, identity. The official chart is not at hand."""

import base64
import json
import subprocess
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
    """The official chart names them <release>-worker and <release>-triggerer, for a release called airflow."""
    (binding,) = of_kind(trial, "RoleBinding")
    assert {subject["name"] for subject in binding["subjects"]} == {"airflow-worker", "airflow-triggerer"}
    assert "serviceAccount" not in json.dumps(AIRFLOW)


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
    for part in ("apiServer", "scheduler", "dagProcessor", "triggerer", "migrateDatabaseJob"):
        assert {"requests", "limits"} <= TRIAL[part]["resources"].keys(), part
    assert {"requests", "limits"} <= AIRFLOW["workers"]["kubernetes"]["resources"].keys()


def test_every_part_of_airflow_reaches_the_api_server() -> None:
    """With policies on and nobody named, the official chart lets nobody in: no task could report."""
    assert AIRFLOW["networkPolicies"]["enabled"] is True
    peers = AIRFLOW["apiServer"]["networkPolicy"]["ingress"]["from"]
    assert {"podSelector": {"matchLabels": {"tier": "airflow"}}} in peers


def test_no_secret_is_in_the_values() -> None:
    assert {AIRFLOW[key] for key in ("fernetKeySecretName", "apiSecretKeySecretName", "jwtSecretName")} == {
        "perennial-airflow"
    }
    assert AIRFLOW["data"] == {"metadataSecretName": "perennial-airflow"}
    assert not {"fernetKey", "apiSecretKey", "jwtSecret", "webserverSecretKey"} & AIRFLOW.keys()


def test_the_trials_secrets_are_all_that_is_named(trial: list[Manifest], secrets: dict[str, dict[str, str]]) -> None:
    text = json.dumps([pod for _, pod in pods(trial)])
    for name in ("perennial-postgresql", "perennial-redis", "perennial-credentials"):
        assert name in text
        assert name in secrets
    assert {"connection", "fernet-key", "api-secret-key", "jwt-secret", "passwords.json"} == set(
        secrets["perennial-airflow"]
    )


def test_the_trials_passwords_agree_and_are_well_formed(secrets: dict[str, dict[str, str]]) -> None:
    from training.adapters.features.store import online_store
    from training.settings import Settings

    url = secrets["perennial-credentials"]["CT_ONLINE_STORE"]
    store = online_store(Settings(online_store=url))
    assert f"password={secrets['perennial-redis']['password']}" in store["connection_string"]
    assert store["connection_string"].startswith("perennial-redis:6379")
    airflow = secrets["perennial-airflow"]
    password = secrets["perennial-postgresql"]["password"]
    assert airflow["connection"].endswith(f"//perennial:{password}@perennial-postgresql:5432/airflow")
    assert len(base64.urlsafe_b64decode(airflow["fernet-key"])) == 32
    assert len(airflow["jwt-secret"]) >= 64
    assert json.loads(airflow["passwords.json"])["admin"]


def test_airflow_is_of_the_locks_version() -> None:
    from importlib.metadata import version

    assert AIRFLOW["airflowVersion"] == version("apache-airflow")


def test_the_configuration_is_airflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option is one that this Airflow knows."""
    from airflow.configuration import conf

    known = {section: set(body["options"]) for section, body in conf.configuration_description.items()}
    known["kubernetes_executor"] = {"delete_worker_pods", "delete_worker_pods_on_failure"}
    for section, options in AIRFLOW["config"].items():
        assert set(options) <= known[section], section
