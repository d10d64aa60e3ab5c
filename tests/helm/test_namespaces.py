"""Steps in a namespace of their own: what is there, who may start pods, and whom those reach."""

import pytest

from tests.helm.chart import APART, NAMESPACE, PRODUCTION, Manifest, merged, named, of_kind, pods, render
from tests.helm.conftest import EVERYTHING
from training.settings import Settings

STEPS = "ml-steps"


@pytest.fixture(scope="module")
def apart() -> list[Manifest]:
    return render(merged(PRODUCTION, EVERYTHING, APART))


def _in(manifests: list[Manifest], namespace: str | None) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for manifest in manifests:
        if manifest["metadata"].get("namespace") == namespace:
            found.setdefault(manifest["kind"], set()).add(manifest["metadata"]["name"])
    return found


def test_what_belongs_to_steps_is_in_their_namespace(apart: list[Manifest]) -> None:
    assert _in(apart, STEPS) == {
        "ConfigMap": {"perennial-settings"},
        "ServiceAccount": {"perennial-step"},
        "Role": {"perennial-step-launcher"},
        "RoleBinding": {"perennial-step-launcher"},
        "ResourceQuota": {"perennial-steps", "perennial-gpus"},
        "LimitRange": {"perennial-steps"},
        "NetworkPolicy": {"perennial-default-deny", "perennial-dns", "perennial-steps"},
    }
    assert _in(apart, "airflow") == {"ConfigMap": {"perennial-settings"}}
    maps = [m["data"] for m in of_kind(apart, "ConfigMap") if m["metadata"]["name"] == "perennial-settings"]
    assert maps == [maps[0]] * 3
    assert maps[0]["CT_POD_NAMESPACE"] == STEPS


def test_nobody_may_start_pods_where_the_other_secrets_are(apart: list[Manifest]) -> None:
    (role,) = of_kind(apart, "Role", "ClusterRole")
    (binding,) = of_kind(apart, "RoleBinding", "ClusterRoleBinding")
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == STEPS
    assert {(s["name"], s["namespace"]) for s in binding["subjects"]} == {
        ("airflow-scheduler", "airflow"),
        ("airflow-triggerer", "airflow"),
    }
    granted = {resource for rule in role["rules"] for resource in rule["resources"]}
    assert granted.isdisjoint({"secrets", "pods/exec", "configmaps", "serviceaccounts", "serviceaccounts/token"})


def test_steps_find_services_of_another_namespace(apart: list[Manifest]) -> None:
    data = named(_release(apart), "ConfigMap", "perennial-settings")["data"]
    assert data["CT_TRACKING_URI"] == f"http://perennial-mlflow.{NAMESPACE}.svc:5000"
    replicas = Settings(serving_urls=data["CT_SERVING_URLS"]).replicas("default")
    assert replicas == [f"dns+http://perennial-serving-replicas.{NAMESPACE}.svc:3000"]
    from mlflow.server.security_utils import is_allowed_host_header

    (container,) = named(apart, "Deployment", "perennial-mlflow")["spec"]["template"]["spec"]["containers"]
    (allowed,) = [a.partition("=")[2].split(",") for a in container["args"] if a.startswith("--allowed-hosts=")]
    assert is_allowed_host_header(allowed, data["CT_TRACKING_URI"].removeprefix("http://"))


def test_policies_name_the_namespaces_of_their_peers(apart: list[Manifest]) -> None:
    """A peer with a podSelector alone means pods beside the policy."""

    def namespaces(policy: str, way: str, peer: str, manifests: list[Manifest]) -> set[str]:
        rules = named(manifests, "NetworkPolicy", policy)["spec"][way]
        peers = [each for rule in rules for each in rule.get("to", rule.get("from", [])) if "podSelector" in each]
        component = "app.kubernetes.io/component"
        return {
            each["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
            for each in peers
            if each["podSelector"]["matchLabels"].get(component) == peer
        }

    own, steps = _release(apart), [m for m in apart if m["metadata"].get("namespace") == STEPS]
    assert namespaces("perennial-mlflow", "ingress", "step", own) == {STEPS}
    assert namespaces("perennial-mlflow", "ingress", "serving", own) == {NAMESPACE}
    assert namespaces("perennial-serving", "ingress", "step", own) == {STEPS}
    assert namespaces("perennial-steps", "egress", "mlflow", steps) == {NAMESPACE}
    assert namespaces("perennial-steps", "egress", "serving", steps) == {NAMESPACE}
    assert namespaces("perennial-steps", "ingress", "step", steps) == {STEPS}


def test_every_component_has_an_identity_of_its_own(manifests: list[Manifest]) -> None:
    """And without a token or a role, which only Airflow's have."""
    accounts = {name: pod["spec"]["serviceAccountName"] for name, pod in pods(manifests)}
    assert accounts == {name: name for name in accounts}
    bound = {s["name"] for binding in of_kind(manifests, "RoleBinding") for s in binding["subjects"]}
    assert bound.isdisjoint(accounts)


def _release(manifests: list[Manifest]) -> list[Manifest]:
    return [manifest for manifest in manifests if "namespace" not in manifest["metadata"]]
