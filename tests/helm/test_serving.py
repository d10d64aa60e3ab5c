"""Serving: no replica goes before another answers, all are found, the log is shipped, the autoscaler has its metric."""

import re
from pathlib import Path

import yaml

from tests.helm.chart import HELM, PRODUCTION, Manifest, environment, merged, named, nested, of_kind, pods, render
from tests.helm.conftest import EVERYTHING

SPOOL = merged(
    PRODUCTION, nested("serving.spool.persistence.enabled", True), nested("serving.autoscaling.enabled", False)
)


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
    # The logs of all models are written and shipped at the same time. BentoML gives requests under way 30 s.
    assert spec["terminationGracePeriodSeconds"] >= drain + 30 + patience


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
    metrics = Metrics(registry).of("card_fraud")
    metrics.answered("/predict", 0.004)
    metrics.flush()
    series = rule["seriesQuery"].partition("{")[0]
    assert re.search(rf"^{series}{{", generate_latest(registry).decode(), re.MULTILINE)
    assert "sum(rate(" in rule["metricsQuery"]


def test_callers_keys_are_a_file_that_follows_its_secret(everything: list[Manifest]) -> None:
    spec = named(everything, "Deployment", "perennial-serving")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    path = Path(environment(container)["CT_SERVING_KEYS_FILE"])
    (mount,) = [m for m in container["volumeMounts"] if m["mountPath"] == str(path.parent)]
    assert "subPath" not in mount
    (volume,) = [v for v in spec["volumes"] if v["name"] == mount["name"]]
    assert volume["secret"] == {"secretName": "callers", "items": [{"key": "keys", "path": path.name}]}


def test_the_spool_is_the_pods_own_or_outlives_it(production: list[Manifest]) -> None:
    def spool(manifest: Manifest) -> tuple[str, list[str]]:
        container = manifest["spec"]["template"]["spec"]["containers"][0]
        state = environment(container)["CT_SERVING_STATE"]
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


def test_two_trials_take_at_most_half_of_a_replicas_memory() -> None:
    """A trial that took more than the pod has would end the service, not the trial."""
    from serving.trials import PROCESSES

    heavy = {"heavy": {"trial": {"memoryMiB": 700, "seconds": 60}, "resources": {"limits": {"memory": "3Gi"}}}}
    release = render(merged(PRODUCTION, {"serving": {"services": heavy}}))
    for name, (mib, seconds, limit) in {"serving": ("512", "30", 2048), "serving-heavy": ("700", "60", 3072)}.items():
        (container,) = named(release, "Deployment", f"perennial-{name}")["spec"]["template"]["spec"]["containers"]
        given = environment(container)
        assert (given["CT_SERVING_LOAD_MIB"], given["CT_SERVING_LOAD_SECONDS"]) == (mib, seconds)
        assert PROCESSES * int(mib) <= limit / 2


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
    backends = [path["backend"]["service"] for path in ingress["rules"][0]["http"]["paths"]]
    assert all(each == {"name": "perennial-serving", "port": {"name": "http"}} for each in backends)
    service = named(everything, "Service", "perennial-serving")
    port = service["spec"]["ports"][0]["port"]
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": "perennial-serving", "port": port}]


def _routed(manifests: list[Manifest]) -> list[set[str]]:
    """The paths that Ingress and HTTPRoute let through; each is exact."""
    ingress = [
        path
        for rule in named(manifests, "Ingress", "perennial-serving")["spec"]["rules"]
        for path in rule["http"]["paths"]
    ]
    route = [m for rule in named(manifests, "HTTPRoute", "perennial-serving")["spec"]["rules"] for m in rule["matches"]]
    assert {path["pathType"] for path in ingress} == {"Exact"}
    assert {(match["path"]["type"], match["method"]) for match in route} == {("Exact", "POST")}
    return [{path["path"] for path in ingress}, {match["path"]["value"] for match in route}]


def test_only_predictions_are_routed_from_outside(everything: list[Manifest]) -> None:
    of = ("/models/{}/predict", "/models/{}/predict_batch", "/v2/models/{}/infer")
    wanted = {path.format(model) for path in of for model in ("card_fraud", "flight_delay")}
    assert _routed(everything) == [wanted, wanted]
    one = merged(
        PRODUCTION, EVERYTHING, nested("serving.models", ["card_fraud"]), nested("serving.ingress.path", "/ml/")
    )
    alone = {*(path.format("card_fraud") for path in of), "/predict", "/predict_batch"}
    assert _routed(render(one)) == [{f"/ml{path}" for path in alone}, alone]


def test_images_have_registry_and_tag_or_digest(everything: list[Manifest]) -> None:
    images = {c["image"] for _, pod in pods(everything) for c in pod["spec"]["containers"]}
    parts = ("serving", "mlflow", "training", "backup")
    assert images == {f"registry.example/ml/{part}:abc1234" for part in parts}
    digest = "sha256:" + "0" * 64
    pinned = render(merged(PRODUCTION, nested("images.serving.digest", digest)))
    container = named(pinned, "Deployment", "perennial-serving")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"perennial/serving@{digest}"
    assert environment(container)["CT_IMAGE"] == container["image"]
