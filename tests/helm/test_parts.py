"""What each part of the chart promises."""

import contextlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.chart import CHART, HELM, NAMESPACE, PRODUCTION, Manifest, merged, named, nested, of_kind, pods, render
from tests.helm.conftest import EVERYTHING, GPU, LOCAL

SPOOL = merged(
    PRODUCTION, nested("serving.spool.persistence.enabled", True), nested("serving.autoscaling.enabled", False)
)


@pytest.fixture(scope="module")
def everything() -> list[Manifest]:
    return render(merged(PRODUCTION, EVERYTHING))


def _env(container: Manifest) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


# --- serving ---


def test_a_new_version_of_serving_takes_no_replica_away(production: list[Manifest]) -> None:
    deployment = named(production, "Deployment", "perennial-serving")
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "replicas" not in deployment["spec"], "the autoscaler's"
    budget = named(production, "PodDisruptionBudget", "perennial-serving")
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    assert budget["spec"]["maxUnavailable"] == 1


def test_a_replica_that_ends_is_forgotten_before_it_stops_and_has_time_to_ship_its_log(
    production: list[Manifest],
) -> None:
    from serving.prediction_log import PredictionLog

    spec = named(production, "Deployment", "perennial-serving")["spec"]["template"]["spec"]
    drain = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    probe = spec["containers"][0]["readinessProbe"]
    assert drain >= probe["periodSeconds"]
    assert PredictionLog.close.__defaults__ is not None
    (patience,) = PredictionLog.close.__defaults__
    # Writer and shipper, one after the other; and requests under way, which BentoML gives 30 s.
    assert spec["terminationGracePeriodSeconds"] >= drain + 30 + 2 * patience


def test_replicas_are_spread_over_zones_and_nodes(production: list[Manifest]) -> None:
    deployment = named(production, "Deployment", "perennial-serving")
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert all(each["labelSelector"] == deployment["spec"]["selector"] for each in spread)


def test_the_autoscaler_follows_cpu_and_requests_in_flight(everything: list[Manifest]) -> None:
    spec = named(everything, "HorizontalPodAutoscaler", "perennial-serving")["spec"]
    cpu, concurrency = spec["metrics"]
    assert cpu["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    assert concurrency["pods"]["target"] == {"type": "AverageValue", "averageValue": "16"}
    assert spec["scaleTargetRef"]["kind"] == "Deployment"


def test_the_metric_of_requests_in_flight_is_made_of_what_serving_says(everything: list[Manifest]) -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    from serving.metrics import Metrics

    (rule,) = yaml.safe_load((HELM / "prometheus-adapter-values.yaml").read_text())["rules"]["custom"]
    scaler = named(everything, "HorizontalPodAutoscaler", "perennial-serving")["spec"]
    assert rule["name"]["as"] == scaler["metrics"][1]["pods"]["metric"]["name"]
    registry = CollectorRegistry()
    Metrics(registry).answered("/predict", 0.004)
    series = rule["seriesQuery"].partition("{")[0]
    assert re.search(rf"^{series}{{", generate_latest(registry).decode(), re.MULTILINE)
    assert "sum(rate(" in rule["metricsQuery"]


def test_callers_keys_are_a_file_that_follows_its_secret(everything: list[Manifest]) -> None:
    spec = named(everything, "Deployment", "perennial-serving")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    path = Path(_env(container)["CT_SERVING_KEYS_FILE"])
    (mount,) = [m for m in container["volumeMounts"] if m["mountPath"] == str(path.parent)]
    assert "subPath" not in mount
    (volume,) = [v for v in spec["volumes"] if v["name"] == mount["name"]]
    assert volume["secret"] == {"secretName": "callers", "items": [{"key": "keys", "path": path.name}]}


def test_the_spool_is_the_pods_own_or_outlives_it(production: list[Manifest]) -> None:
    def spool(manifest: Manifest) -> tuple[str, list[str]]:
        container = manifest["spec"]["template"]["spec"]["containers"][0]
        state = _env(container)["CT_SERVING_STATE"]
        (mount,) = [m["name"] for m in container["volumeMounts"] if m["mountPath"] == state]
        own = [v["name"] for v in manifest["spec"]["template"]["spec"]["volumes"] if v["name"] == mount]
        return mount, own

    assert spool(named(production, "Deployment", "perennial-serving")) == ("spool", ["spool"])
    stateful = named(render(SPOOL), "StatefulSet", "perennial-serving")
    assert spool(stateful) == ("spool", [])
    assert [claim["metadata"]["name"] for claim in stateful["spec"]["volumeClaimTemplates"]] == ["spool"]
    assert set(stateful["spec"]["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}


def test_serving_mounts_the_shared_volume_for_the_lake_alone() -> None:
    def home(lake: str) -> Manifest:
        values = merged(PRODUCTION, {"state": {"uris": {"work": "", "lake": lake}, "volume": {"enabled": True}}})
        spec = named(render(values), "Deployment", "perennial-serving")["spec"]["template"]["spec"]
        (volume,) = [v for v in spec["volumes"] if v["name"] == "home"]
        return volume

    assert home("")["persistentVolumeClaim"] == {"claimName": "perennial-state"}
    assert "emptyDir" in home("s3://bucket/lake")
    once = merged(
        PRODUCTION, {"state": {"uris": {"work": ""}, "volume": {"enabled": True, "accessMode": "ReadWriteOnce"}}}
    )
    assert of_kind(render(once), "HorizontalPodAutoscaler"), "the volume is the steps' alone"


def test_a_changed_setting_restarts_serving(production: list[Manifest]) -> None:
    def checksum(manifests: list[Manifest]) -> str:
        template = named(manifests, "Deployment", "perennial-serving")["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/settings"]

    assert checksum(production) == checksum(render(PRODUCTION))
    assert checksum(production) != checksum(render(merged(PRODUCTION, {"settings": {"CT_LOG_LEVEL": "DEBUG"}})))
    assert checksum(production) != checksum(render(merged(PRODUCTION, {"env": {"AWS_REGION": "x"}})))


def test_rollouts_find_every_replica_ready_or_not(production: list[Manifest]) -> None:
    service = named(production, "Service", "perennial-serving-replicas")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    settings = named(production, "ConfigMap", "perennial-settings")["data"]
    assert (
        settings["CT_SERVING_URLS"] == f"dns+http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    )


def test_outside_ways_lead_to_serving(everything: list[Manifest]) -> None:
    ingress = named(everything, "Ingress", "perennial-serving")["spec"]
    assert ingress["ingressClassName"] == "nginx"
    assert ingress["tls"] == [{"hosts": ["fraud.example"], "secretName": "fraud-tls"}]
    route = named(everything, "HTTPRoute", "perennial-serving")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"]["hostnames"] == ["fraud.example"]
    assert route["spec"]["parentRefs"] == [{"name": "public"}]
    service = named(everything, "Service", "perennial-serving")
    port = service["spec"]["ports"][0]["port"]
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": "perennial-serving", "port": port}]


# --- images ---


def test_images_have_registry_and_tag_or_digest(everything: list[Manifest]) -> None:
    images = {c["image"] for _, pod in pods(everything) for c in pod["spec"]["containers"]}
    parts = ("serving", "mlflow", "training")
    assert images == {f"registry.example/ml/{part}:abc1234" for part in parts}
    digest = "sha256:" + "0" * 64
    pinned = render(merged(PRODUCTION, nested("images.serving.digest", digest)))
    container = named(pinned, "Deployment", "perennial-serving")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"perennial/serving@{digest}"
    assert _env(container)["CT_IMAGE"] == container["image"]


# --- MLflow and the databases ---


def test_passwords_are_in_no_manifest_but_by_reference() -> None:
    for values in (PRODUCTION, LOCAL):
        (container,) = named(render(values), "Deployment", "perennial-mlflow")["spec"]["template"]["spec"]["containers"]
        assert not any("postgresql://" in argument for argument in container["args"])
        env = _env(container)
        uri = env["MLFLOW_BACKEND_STORE_URI"]
        if values is PRODUCTION:
            assert uri == {"secretKeyRef": {"name": "mlflow-database", "key": "uri"}}
        else:
            assert "$(POSTGRES_PASSWORD)@" in uri
            names = [each["name"] for each in container["env"]]
            assert names.index("POSTGRES_PASSWORD") < names.index("MLFLOW_BACKEND_STORE_URI"), "expanded in order"
            assert env["POSTGRES_PASSWORD"] == {"secretKeyRef": {"name": "perennial-postgresql", "key": "password"}}


def test_the_names_mlflow_answers_to_are_those_it_is_called_by(production: list[Manifest]) -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    (container,) = named(production, "Deployment", "perennial-mlflow")["spec"]["template"]["spec"]["containers"]
    (allowed,) = [a.partition("=")[2].split(",") for a in container["args"] if a.startswith("--allowed-hosts=")]
    called = named(production, "ConfigMap", "perennial-settings")["data"]["CT_TRACKING_URI"].removeprefix("http://")
    assert is_allowed_host_header(allowed, called)
    assert is_allowed_host_header(allowed, f"perennial-mlflow.{NAMESPACE}.svc.cluster.local:5000")
    assert not is_allowed_host_header(allowed, "evil.example:5000")


def test_the_trial_database_serves_mlflow_and_airflow() -> None:
    manifests = render(LOCAL)
    stateful = named(manifests, "StatefulSet", "perennial-postgresql")["spec"]["template"]["spec"]
    env = _env(stateful["containers"][0])
    assert (env["POSTGRES_USER"], env["POSTGRES_DB"]) == ("perennial", "mlflow")
    assert "CREATE DATABASE airflow" in named(manifests, "ConfigMap", "perennial-postgresql")["data"]["databases.sql"]


@pytest.mark.redis
def test_the_trials_redis_asks_for_its_password(tmp_path: Path) -> None:
    """The container's own command and probe, with a real Redis in folders of the test."""
    server, client = shutil.which("redis-server"), shutil.which("redis-cli")
    if server is None or client is None:
        pytest.skip("redis-server is not on the PATH")
    (container,) = named(render(LOCAL), "StatefulSet", "perennial-redis")["spec"]["template"]["spec"]["containers"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {"/run/redis": str(tmp_path), "dir /data": f"dir {tmp_path}\\nport {port}\\nbind 127.0.0.1"}
    command = container["command"][-1]
    for mounted, folder in folders.items():
        assert mounted in command
        command = command.replace(mounted, folder)
    env = {"REDIS_PASSWORD": "secret", "PATH": os.environ["PATH"]}
    process = subprocess.Popen(["sh", "-c", command], env=env, stdout=subprocess.DEVNULL)
    try:
        probe = container["readinessProbe"]["exec"]["command"][-1].replace("redis-cli", f"redis-cli -p {port}")
        ready = False
        deadline = time.monotonic() + 20
        while not ready and time.monotonic() < deadline:
            ready = subprocess.run(["sh", "-c", probe], env=env, capture_output=True).returncode == 0
            time.sleep(0.1)
        assert ready
        refused = subprocess.run([client, "-p", str(port), "ping"], capture_output=True, text=True)
        assert "NOAUTH" in refused.stdout
        assert (tmp_path / "redis.conf").stat().st_mode & 0o077 == 0
    finally:
        process.terminate()
        process.wait(10)


def test_what_is_kept_outlives_the_release() -> None:
    claims = of_kind(render(LOCAL), "PersistentVolumeClaim")
    assert {claim["metadata"]["name"] for claim in claims} == {"perennial-state", "perennial-mlflow"}
    assert all(claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for claim in claims)


# --- step pods ---


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
    assert bound == ["airflow-worker", "airflow-triggerer"]
    assert named(production, "ServiceAccount", "perennial-step")["metadata"]["name"] not in bound


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


# --- hooks ---


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
        assert "serviceAccountName" not in spec
        assert not before or "priorityClassName" not in spec, "not there yet"
        assert not before or not any(
            "configMapRef" in each for c in spec["containers"] for each in c.get("envFrom", [])
        )


def test_the_migration_makes_tables_and_finds_them_made(everything: list[Manifest], tmp_path: Path) -> None:
    """The hook's own command, on SQLite: on an empty database, and after a rollback or an upgrade that changes nothing."""
    (container,) = named(everything, "Job", "perennial-migrate")["spec"]["template"]["spec"]["containers"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {"PATH": path, "HOME": str(tmp_path), "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    versions = []
    for _ in range(2):
        done = subprocess.run(container["command"], env=env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
            versions.append(database.execute("SELECT version_num FROM alembic_version").fetchall())
    assert len(versions[0]) == 1
    assert versions[0] == versions[1]


# --- monitoring ---


def test_one_service_is_scraped(everything: list[Manifest]) -> None:
    monitor = named(everything, "ServiceMonitor", "perennial-serving")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [s for s in of_kind(everything, "Service") if wanted <= s["metadata"]["labels"].items()]
    assert [service["metadata"]["name"] for service in found] == ["perennial-serving"]
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in found[0]["spec"]["ports"]}


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


# --- lint, notes ---


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


def test_the_modules_that_hooks_run_are_there(everything: list[Manifest]) -> None:
    commands = [job["spec"]["template"]["spec"]["containers"][0]["command"] for job in of_kind(everything, "Job")]
    modules = [command[2] for command in commands if command[:2] == ["python", "-m"]]
    assert len(modules) == 2
    assert all(find_spec(module) for module in modules)
