"""Who may do what on a cluster, with the release, its steps and Airflow in namespaces of their own."""

import pytest

from tests.kubernetes.cluster import Namespace, pod, wait_for

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1800)]
Spaces = tuple[Namespace, Namespace, Namespace]
#: Asks MLflow as a user of the environment, and prints the answers' numbers.
ASK = """
import base64, json, os, urllib.error, urllib.request
def ask(path, body=None, login=True):
    headers = {"Content-Type": "application/json"}
    if login:
        pair = os.environ["MLFLOW_TRACKING_USERNAME"] + ":" + os.environ["MLFLOW_TRACKING_PASSWORD"]
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    data = None if body is None else json.dumps(body).encode()
    url = os.environ["CT_TRACKING_URI"] + "/api/2.0/mlflow/" + path
    try:
        return urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code
print(json.dumps([ask("registered-models/search", login=False), ask("registered-models/search"),
                  ask("registered-models/create", {"name": NAME})]))
"""


def test_airflow_starts_pods_where_steps_run_and_nowhere_else(apart: Spaces) -> None:
    release, steps, airflow = apart
    for verb, resource in [("create", "pods"), ("delete", "pods"), ("get", "pods/log"), ("create", "jobs")]:
        assert airflow.may("airflow-scheduler", verb, resource, steps.name), (verb, resource)
        for space in (release, airflow):
            assert not airflow.may("airflow-scheduler", verb, resource, space.name), (verb, resource, space.name)
    for verb, resource in [("get", "secrets"), ("list", "secrets"), ("create", "pods/exec"), ("get", "configmaps")]:
        for space in (steps, release):
            assert not airflow.may("airflow-scheduler", verb, resource, space.name), (verb, resource, space.name)


def test_no_component_has_a_right(apart: Spaces) -> None:
    release, steps, _ = apart
    assert "perennial-serving" in release.accounts()
    assert "perennial-step" in steps.accounts()
    for own in (release, steps):
        for account in own.accounts():
            for where in (release, steps):
                for verb, resource in [
                    ("get", "secrets"),
                    ("create", "pods"),
                    ("list", "pods"),
                    ("create", "pods/exec"),
                ]:
                    assert not own.may(account, verb, resource, where.name), (account, verb, resource, where.name)


def test_the_namespace_of_steps_has_no_secret_of_the_release(apart: Spaces) -> None:
    _, steps, _ = apart
    assert steps.core.list_namespaced_secret(steps.name).items == []


def test_a_pod_that_is_not_restricted_is_refused_where_steps_run(apart: Spaces) -> None:
    _, steps, _ = apart
    good = pod(steps, "good", "training", ["true"], state=False)
    assert steps.refusal(good) == ""
    good["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    assert "violates PodSecurity" in steps.refusal(good)


@pytest.mark.parametrize(("user", "answers"), [("steps", [401, 200, 200]), ("serving", [401, 200, 403])])
def test_mlflow_needs_a_login_and_serving_only_reads(apart: Spaces, user: str, answers: list[int]) -> None:
    release, _, _ = apart
    key = {"name": "perennial-mlflow-login", "key": f"{user}-password"}
    login = [
        {"name": "MLFLOW_TRACKING_USERNAME", "value": user},
        {"name": "MLFLOW_TRACKING_PASSWORD", "valueFrom": {"secretKeyRef": key}},
    ]
    mlflow = "app.kubernetes.io/component=mlflow"
    wait_for("MLflow", lambda: release.ready(mlflow), 900)
    code = f"NAME = {user + '-made'!r}\n{ASK}"
    asking = pod(release, f"ask-as-{user}", "training", ["python", "-c", code], login, state=False)
    # As a replica: MLflow's network policy lets those in.
    asking["metadata"]["labels"] |= {
        "app.kubernetes.io/name": "perennial",
        "app.kubernetes.io/instance": "perennial",
        "app.kubernetes.io/component": "serving",
        "app.kubernetes.io/part-of": "perennial",
    }
    name = release.run(asking)
    wait_for("answers", lambda: release.phase(name) in {"Succeeded", "Failed"}, 300)
    assert release.log(name).strip().splitlines()[-1] == str(answers)
