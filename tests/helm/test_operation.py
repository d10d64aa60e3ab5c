"""Step pods' rights and limits, monitoring, the chart as a whole."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.chart import (
    CHART,
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
from tests.helm.conftest import EVERYTHING, GPU, LOCAL, MATRIX


def test_the_launcher_may_do_what_the_operator_does_and_nothing_else(production: list[Manifest]) -> None:
    (role,) = of_kind(production, "Role")
    assert not of_kind(production, "ClusterRole", "ClusterRoleBinding")
    allowed = {
        (g, r, v) for rule in role["rules"] for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]
    }
    managed = ("create", "get", "list", "watch", "patch", "delete")
    assert allowed == {
        *(("", "pods", verb) for verb in managed),
        ("", "pods/log", "get"),
        ("", "events", "list"),
        *(("batch", "jobs", verb) for verb in managed),
        *(("", "services", verb) for verb in ("create", "get", "delete")),
    }


def test_step_pods_have_no_rights(production: list[Manifest]) -> None:
    bound = [s["name"] for binding in of_kind(production, "RoleBinding") for s in binding["subjects"]]
    assert bound == ["airflow-scheduler", "airflow-triggerer"]
    assert named(production, "ServiceAccount", "perennial-step")["metadata"]["name"] not in bound


@pytest.mark.parametrize("row", MATRIX)
def test_step_pods_are_told_what_the_chart_has_for_them(row: str) -> None:
    manifests = render(MATRIX[row])
    told = named(manifests, "ConfigMap", "perennial-settings")["data"]
    own = MATRIX[row].get("steps", {}).get("namespace", NAMESPACE)
    assert (told["CT_LAUNCHER"], told["CT_POD_NAMESPACE"]) == ("pod", own)
    have = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    assert ("ServiceAccount", told["CT_POD_SERVICE_ACCOUNT"]) in have
    assert ("ConfigMap", told["CT_POD_CONFIG_MAP"]) in have
    if "CT_POD_VOLUME_CLAIM" in told:
        assert ("PersistentVolumeClaim", told["CT_POD_VOLUME_CLAIM"]) in have
    if of_kind(manifests, "PriorityClass"):
        assert ("PriorityClass", told["CT_POD_PRIORITY_CLASS"]) in have
        (quota,) = [q for q in of_kind(manifests, "ResourceQuota") if "scopeSelector" in q["spec"]]
        scope = quota["spec"]["scopeSelector"]["matchExpressions"][0]
        assert scope["values"] == [told["CT_POD_PRIORITY_CLASS"]]
    used = [ref["secretRef"]["name"] for _, pod in pods(manifests) for ref in _env_from(pod) if "secretRef" in ref]
    assert told.get("CT_POD_SECRETS") in {*used, None}


def _env_from(pod: Manifest) -> list[Manifest]:
    return [each for container in pod["spec"]["containers"] for each in container.get("envFrom", [])]


def test_users_with_many_digits_stay_numbers() -> None:
    manifests = render(merged(PRODUCTION, nested("security.runAsUser", 1000660000)))
    assert named(manifests, "ConfigMap", "perennial-settings")["data"]["CT_POD_USER"] == "1000660000"
    users = {pod["spec"]["securityContext"]["runAsUser"] for _, pod in pods(manifests)}
    assert users == {1000660000}


def test_limits_count_step_pods_only(production: list[Manifest]) -> None:
    quota = named(production, "ResourceQuota", "perennial-steps")["spec"]
    (scope,) = quota["scopeSelector"]["matchExpressions"]
    assert scope["values"] == ["perennial-step"]
    # What Kubernetes lets a quota with this scope count (pkg/apis/core/validation).
    assert set(quota["hard"]) <= {
        "pods",
        "cpu",
        "memory",
        "requests.cpu",
        "requests.memory",
        "limits.cpu",
        "limits.memory",
    }
    assert named(production, "PriorityClass", "perennial-step")["preemptionPolicy"] == "Never"
    values = {m["metadata"]["name"]: m["value"] for m in of_kind(production, "PriorityClass")}
    assert values["perennial-serving"] > values["perennial-step"]
    gpus = named(render(merged(PRODUCTION, GPU)), "ResourceQuota", "perennial-gpus")["spec"]["hard"]
    assert gpus == {"requests.nvidia.com/gpu": "8"}


# --- monitoring ---


def test_one_service_is_scraped(everything: list[Manifest]) -> None:
    monitor = named(everything, "ServiceMonitor", "perennial-serving")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [s for s in of_kind(everything, "Service") if wanted <= s["metadata"]["labels"].items()]
    assert [service["metadata"]["name"] for service in found] == ["perennial-serving"]
    (container,) = named(everything, "Deployment", "perennial-serving")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    (scraped,) = [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]]
    (target,) = [port["targetPort"] for port in found[0]["spec"]["ports"] if port["name"] == scraped]
    assert str(ports[target]) == environment(container)["CT_SERVING_MANAGEMENT_PORT"]


def test_rules_and_dashboards_are_those_of_the_files(everything: list[Manifest]) -> None:
    rules = {m["metadata"]["name"]: m["spec"] for m in of_kind(everything, "PrometheusRule")}
    files = {f"perennial-{path.stem}": yaml.safe_load(path.read_text()) for path in CHART.glob("files/rules/*.yaml")}
    assert rules == files
    boards = [m for m in of_kind(everything, "ConfigMap") if "grafana_dashboard" in m["metadata"]["labels"]]
    found = {name: json.loads(text) for board in boards for name, text in board["data"].items()}
    assert found == {path.name: json.loads(path.read_text()) for path in CHART.glob("files/dashboards/*.json")}


def test_rules_and_dashboards_are_taken_as_they_are(tmp_path: Path) -> None:
    """Prometheus and Grafana have templates of their own, which Helm must leave alone."""
    import helm_python

    chart = Path(shutil.copytree(CHART, tmp_path / "perennial"))
    rule = {"alert": "Down", "expr": "up == 0", "annotations": {"summary": "{{ $labels.pod }} is {{ $value }}"}}
    board = {"title": "Serving", "panels": [{"legendFormat": "{{pod}}"}]}
    (chart / "files" / "rules").mkdir(parents=True, exist_ok=True)
    (chart / "files" / "dashboards").mkdir(parents=True, exist_ok=True)
    groups = {"groups": [{"name": "own", "rules": [rule]}]}
    (chart / "files" / "rules" / "own.yaml").write_text(yaml.safe_dump(groups))
    (chart / "files" / "dashboards" / "own.json").write_text(json.dumps(board, indent=2))
    with helm_python.Chart.load(chart) as loaded:
        text = loaded.render(merged(PRODUCTION, EVERYTHING), name="perennial", namespace=NAMESPACE)
    manifests = [m for m in yaml.safe_load_all(text["perennial/templates/monitoring.yaml"]) if m]
    assert named(manifests, "PrometheusRule", "perennial-own")["spec"] == groups
    config = named(manifests, "ConfigMap", "perennial-dashboard-own")
    assert json.loads(config["data"]["own.json"]) == board


def test_prometheus_takes_the_rules(tmp_path: Path, everything: list[Manifest]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on the PATH (Debian: prometheus)")
    for manifest in of_kind(everything, "PrometheusRule"):
        path = tmp_path / f"{manifest['metadata']['name']}.yaml"
        path.write_text(yaml.safe_dump(manifest["spec"]))
        done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


# --- the chart ---


@pytest.mark.parametrize("values", [{}, LOCAL, merged(PRODUCTION, GPU), merged(PRODUCTION, EVERYTHING)])
def test_helm_lint_is_clean(values: dict[str, Any]) -> None:
    import helm_python

    found = helm_python.lint(CHART, values, strict=True)
    assert found["errors"] == []
    # Severity 1 is a recommendation.
    assert [m for m in found["messages"] if m["severity"] > 1] == []


def test_the_chart_is_of_the_packages_version() -> None:
    import tomllib

    from training.settings import ROOT

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == project["version"]
    assert re.fullmatch(r">=1\.\d+\.0-0", chart["kubeVersion"])
