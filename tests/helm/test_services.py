"""Several prediction services in one release, each for the models whose spec names it."""

import pytest

from tests.helm.chart import PRODUCTION, Manifest, environment, merged, named, nested, of_kind, pods, render, selects
from tests.helm.conftest import EVERYTHING, HEAVY, LOCAL
from tests.helm.test_network import Network
from training.settings import Settings

NAMES = {
    "default": "perennial-serving",
    "heavy_models": "perennial-serving-heavy-models",
    "light": "perennial-serving-light",
}


@pytest.fixture(scope="module")
def release() -> list[Manifest]:
    return render(merged(PRODUCTION, HEAVY))


def pod(manifests: list[Manifest], kind: str, service: str) -> Manifest:
    return named(manifests, kind, NAMES[service])["spec"]["template"]


def test_one_service_serves_all_models_by_default(production: list[Manifest]) -> None:
    (deployment,) = [m for m in of_kind(production, "Deployment", "StatefulSet") if "serving" in m["metadata"]["name"]]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found = environment(container)
    assert (found["CT_SERVING_NAME"], found["CT_SERVING_MODELS"]) == ("default", "*")
    urls = named(production, "ConfigMap", "perennial-settings")["data"]["CT_SERVING_URLS"]
    assert urls == "dns+http://perennial-serving-replicas:3000"


def test_a_service_takes_the_values_of_serving_but_for_its_own(release: list[Manifest]) -> None:
    heavy, light = named(release, "StatefulSet", NAMES["heavy_models"]), named(release, "Deployment", NAMES["light"])
    assert heavy["spec"]["replicas"] == 5
    assert "replicas" not in light["spec"], "the autoscaler's"
    (container,) = heavy["spec"]["template"]["spec"]["containers"]
    (other,) = light["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == {**other["resources"]["requests"], "cpu": "2"}
    assert heavy["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "heavy"}
    assert "nodeSelector" not in light["spec"]["template"]["spec"]
    (claim,) = heavy["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "9Gi"
    assert {m["metadata"]["name"] for m in of_kind(release, "HorizontalPodAutoscaler")} == {
        NAMES["default"],
        NAMES["light"],
    }
    budgets = {m["metadata"]["name"]: m["spec"]["maxUnavailable"] for m in of_kind(release, "PodDisruptionBudget")}
    assert budgets == {NAMES["default"]: 1, NAMES["heavy_models"]: 2, NAMES["light"]: 1}


@pytest.mark.parametrize(("service", "models"), [("default", "*"), ("heavy_models", "one,two"), ("light", "*")])
def test_a_pod_knows_its_service_and_models(release: list[Manifest], service: str, models: str) -> None:
    kind = "StatefulSet" if service == "heavy_models" else "Deployment"
    (container,) = pod(release, kind, service)["spec"]["containers"]
    found = environment(container)
    assert (found["CT_SERVING_NAME"], found["CT_SERVING_MODELS"]) == (service, models)
    assert found["CT_SERVING_MAXIMUM_MODELS"] == ("1" if service == "heavy_models" else "0")


def test_rollouts_find_the_replicas_of_each_service(release: list[Manifest]) -> None:
    data = named(release, "ConfigMap", "perennial-settings")["data"]
    settings = Settings(serving_urls=data["CT_SERVING_URLS"])
    for service, name in NAMES.items():
        assert settings.replicas(service) == [f"dns+http://{name}-replicas:3000"]
        assert named(release, "Service", f"{name}-replicas")["spec"]["clusterIP"] == "None"


def test_no_object_of_one_service_takes_the_pods_of_another(release: list[Manifest]) -> None:
    labels = {
        name: pod(release, "StatefulSet" if name == "heavy_models" else "Deployment", name)["metadata"]["labels"]
        for name in NAMES
    }
    for service, name in NAMES.items():
        selectors = [
            {"matchLabels": named(release, "Service", name)["spec"]["selector"]},
            {"matchLabels": named(release, "Service", f"{name}-replicas")["spec"]["selector"]},
            named(release, "PodDisruptionBudget", name)["spec"]["selector"],
            named(release, "NetworkPolicy", name)["spec"]["podSelector"],
        ]
        for selector in selectors:
            assert [each for each in labels if selects(selector, labels[each])] == [service]


def test_the_pods_of_every_service_may_talk_to_the_same_systems() -> None:
    network = Network(render(merged(LOCAL, HEAVY)))
    for component in ("serving", "serving-heavy-models", "serving-light"):
        assert network.may("step", component, 3000)
        assert network.may(component, "mlflow", 5000)
        assert network.may(component, "redis", 6379)
        assert not network.may(component, "postgresql", 5432)
    assert not network.may("serving", "serving-light", 5000)


def test_every_service_is_scraped_once_and_a_way_from_outside_leads_to_one() -> None:
    everything = render(merged(PRODUCTION, EVERYTHING, HEAVY))
    monitors = of_kind(everything, "ServiceMonitor")
    services = of_kind(everything, "Service")
    scraped = [
        service["metadata"]["name"]
        for monitor in monitors
        for service in services
        if selects(monitor["spec"]["selector"], service["metadata"]["labels"])
    ]
    assert sorted(scraped) == sorted(NAMES.values())
    assert [m["metadata"]["name"] for m in of_kind(everything, "Ingress", "HTTPRoute")] == [NAMES["default"]] * 2
    own = {"serving": {"services": {"light": {"ingress": {"enabled": True, "host": "light.example"}}}}}
    ingress = named(render(merged(PRODUCTION, EVERYTHING, HEAVY, own)), "Ingress", NAMES["light"])["spec"]
    (rule,) = ingress["rules"]
    assert rule["host"] == "light.example"
    assert rule["http"]["paths"][0]["backend"]["service"]["name"] == NAMES["light"]


def test_each_service_has_an_identity_and_may_have_a_secret_of_its_own() -> None:
    own = nested("serving.services.light.credentials.existingSecret", "light-credentials")
    found = dict(pods(render(merged(PRODUCTION, HEAVY, own))))
    for name in NAMES.values():
        assert found[name]["spec"]["serviceAccountName"] == name
        (container,) = found[name]["spec"]["containers"]
        secrets = [source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source]
        assert secrets == ["light-credentials" if name == NAMES["light"] else "perennial-credentials"]


@pytest.mark.parametrize(
    ("services", "message"),
    [
        ({"replicas": {}}, "serving.services.replicas: this name is taken"),
        ({"a_replicas": {}, "a": {}}, "serving.services.a_replicas: this name is taken"),
        ({"a" * 40: {}}, "is too long for Kubernetes"),
        ({"heavy": {"autoscaling": {"minReplicas": 9}}}, "serving.services.heavy.autoscaling.minReplicas is above"),
        ({"heavy": {"drainSeconds": 100}}, "serving.services.heavy.terminationGracePeriodSeconds must leave time"),
        ({"heavy": {"ingress": {"enabled": True}}}, "serving.services.heavy.ingress.enabled needs"),
    ],
)
def test_a_service_that_cannot_work_is_refused_by_its_name(services: Manifest, message: str) -> None:
    import helm_python

    with pytest.raises(helm_python.HelmError) as caught:
        render(merged(PRODUCTION, nested("serving.services", services)))
    assert message in str(caught.value)
