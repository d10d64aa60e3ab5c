"""What the chart does not take: unknown keys, wrong types, and what cannot work together, each with a sentence."""

from typing import Any

import pytest

from tests.helm.chart import APART, CHART, PRODUCTION, merged, nested, render
from tests.helm.conftest import LOCAL


def _refused(values: dict[str, Any]) -> str:
    import helm_python

    with pytest.raises(helm_python.HelmError) as caught:
        render(values)
    return str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "servng.replicas",
        "serving.replica",
        "serving.autoscaling.cpus",
        "serving.ingress.hosts",
        "mlflow.database.url",
        "state.uris.lakes",
        "steps.quota.gpu",
        "networkPolicy.external.objectStore.cidr",
        "images.airflow.tag",
        "postgresql.password",
        "hooks.migrate.enable",
    ],
)
def test_an_unknown_key_is_an_error(path: str) -> None:
    message = _refused(merged(PRODUCTION, nested(path, "1")))
    assert "additional properties" in message
    assert any(f"'{key}' not allowed" in message for key in path.split("."))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("serving.replicas", 0),
        ("serving.replicas", "two"),
        ("serving.trial.memoryMiB", "512Mi"),
        ("mlflow.port", 70000),
        ("serving.models", ["Card Fraud"]),
        ("serving.models", []),
        ("serving.services.default", {}),
        ("serving.services.Heavy", {}),
        ("serving.services.heavy.replicas", 0),
        ("serving.services.heavy.services", {}),
        ("images.pullPolicy", "Sometimes"),
        ("images.serving.digest", "abc"),
        ("credentials.existingSecret", "Not A Name"),
        ("state.volume.accessMode", "ReadOnlyMany"),
        ("state.volume.size", "much"),
        ("state.uris.lake", "s3://key:secret@bucket/lake"),
        ("onlineStore.url", "http://redis"),
        ("mlflow.externalUrl", "mlflow.example"),
        ("settings.LOG_LEVEL", "DEBUG"),
        ("env.CT_LOG_LEVEL", "DEBUG"),
        ("security.runAsUser", 0),
        ("steps.launchers", []),
        ("signing.trustedKeys", ["-----BEGIN PUBLIC KEY-----"]),
    ],
)
def test_a_value_of_the_wrong_kind_is_an_error(path: str, value: Any) -> None:
    message = _refused(merged(PRODUCTION, nested(path, value)))
    assert "schema" in message
    assert path.split(".")[-1] in message


def test_every_object_of_the_schema_is_closed_or_open_on_purpose() -> None:
    import json

    schema = json.loads((CHART / "values.schema.json").read_text())
    open_on_purpose = {"affinity", "tolerations", "parentRefs", "podSelector", "namespaceSelector", "global"}

    def walk(node: Any, name: str) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and "additionalProperties" not in node:
                assert name in open_on_purpose, name
            for key, value in node.items():
                walk(value, name if key in {"items", "allOf"} else key)

    walk(schema, "")


def test_the_schema_knows_every_default_and_every_default_is_described() -> None:
    import json

    import yaml

    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def same(properties: dict[str, Any], values: dict[str, Any], path: str) -> None:
        assert set(properties) - {"global"} == set(values), path or "top"
        for key, value in values.items():
            node = properties[key]
            node = schema["definitions"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
            if isinstance(value, dict) and "properties" in node:
                same(node["properties"], value, f"{path}.{key}")

    same(schema["properties"], defaults, "")


RWO = {"state": {"uris": {"lake": ""}, "volume": {"enabled": True, "accessMode": "ReadWriteOnce"}}}
AUTOSCALED = nested("serving.autoscaling.enabled", True)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (nested("state.uris.lake", ""), "Nowhere to keep state: set state.uris.lake"),
        (nested("credentials.existingSecret", ""), "No online store"),
        (nested("onlineStore.url", "redis://:secret@redis:6379/0"), "onlineStore.url carries a password"),
        (
            {"redis": {"enabled": True, "existingSecret": "r"}, "onlineStore": {"url": "redis://redis:6379/0"}},
            "Two online stores",
        ),
        (nested("engine.name", "spark"), "engine.name spark needs engine.url"),
        (nested("engine.url", "sc://spark:15002/;token=secret"), "engine.url carries a token"),
        (nested("engine.url", "sc://spark:15002"), "networkPolicy.external.engine.to names no addresses"),
        (nested("redis.enabled", True), "redis.enabled needs redis.existingSecret"),
        (
            {"redis": {"enabled": True, "existingSecret": "r"}, "credentials": {"existingSecret": ""}},
            "CT_ONLINE_STORE=redis://:<password>@perennial-redis:6379/0",
        ),
        (nested("env.MLFLOW_BACKEND_STORE_URI", "sqlite://"), "env.MLFLOW_BACKEND_STORE_URI is the chart's own"),
        (nested("env.POSTGRES_PASSWORD", "secret"), "env.POSTGRES_PASSWORD is the chart's own"),
        (nested("mlflow.database.existingSecret", ""), "No database for MLflow"),
        (
            {"postgresql": {"enabled": True, "existingSecret": "p"}},
            "Two databases for MLflow",
        ),
        (
            {"postgresql": {"enabled": True}, "mlflow": {"database": {"existingSecret": ""}}},
            "postgresql.enabled needs postgresql.existingSecret",
        ),
        (nested("mlflow.login.existingSecret", ""), "No passwords for MLflow"),
        (
            {"credentials": {"existingSecret": ""}, "onlineStore": {"url": "redis://redis:6379/0"}},
            "mlflow.login.enabled needs credentials.existingSecret",
        ),
        (nested("env.MLFLOW_TRACKING_PASSWORD", "secret"), "env.MLFLOW_TRACKING_PASSWORD is the chart's own"),
        (nested("mlflow.artifacts.uri", ""), "Nowhere to keep models"),
        (nested("mlflow.artifacts.volume.enabled", True), "Models can be kept in one place"),
        (
            {"mlflow": {"replicas": 2, "artifacts": {"uri": "", "volume": {"enabled": True}}}},
            "mlflow.replicas above 1 needs artifacts that all of them reach",
        ),
        (nested("mlflow.externalUrl", "https://mlflow.example"), "Two MLflow servers"),
        (nested("mlflow.enabled", False), "No MLflow"),
        (merged(RWO, AUTOSCALED), "cannot spread pods that share a ReadWriteOnce volume"),
        (nested("serving.spool.persistence.enabled", True), "would leave predictions on the volumes"),
        (nested("serving.autoscaling.minReplicas", 9), "minReplicas is above maxReplicas"),
        (nested("serving.autoscaling.cpu", None), "nothing to scale on"),
        (nested("serving.resources.requests.cpu", None), "serving.resources.requests.cpu, which is not set"),
        (nested("serving.terminationGracePeriodSeconds", 10), "must leave time"),
        (nested("serving.ingress.enabled", True), "serving.ingress.enabled needs serving.ingress.host"),
        (
            {"serving": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]}}},
            "needs serving.httpRoute.hostnames",
        ),
        (
            {"serving": {"httpRoute": {"enabled": True, "hostnames": ["a.example"]}}},
            "needs serving.httpRoute.parentRefs",
        ),
        (
            {"serving": {"ingress": {"enabled": True, "host": "a.example"}}},
            "serving.ingress lets callers from outside the cluster in without a key",
        ),
        (
            {"serving": {"httpRoute": {"enabled": True, "hostnames": ["a.example"], "parentRefs": [{"name": "g"}]}}},
            "serving.httpRoute lets callers from outside the cluster in without a key",
        ),
        (
            {"serving": {"trustedGateway": True, "ingress": {"enabled": True, "host": "a.example"}}},
            'write their names in place of "*"',
        ),
        ({"serving": {"enabled": False, "ingress": {"enabled": True, "host": "a.example"}}}, "lead to serving"),
        (nested("steps.shareNamespace", False), "Steps would run in the namespace that holds all Secrets"),
        (nested("steps", {"namespace": "ml", "shareNamespace": False}), "in the namespace that holds all Secrets"),
        (nested("steps.namespace", "ml-steps"), "contradict each other"),
        (merged(APART, nested("steps.launchers", [{"name": "airflow-scheduler"}])), "install Airflow in a namespace"),
        (merged(APART, nested("state.volume.enabled", True)), "A claim belongs to one namespace"),
        (nested("networkPolicy.external.objectStore.to", []), "networkPolicy.external.objectStore.to names no"),
        (nested("networkPolicy.external.database.to", []), "networkPolicy.external.database.to names no"),
        (nested("networkPolicy.external.onlineStore.to", []), "networkPolicy.external.onlineStore.to names no"),
        (
            merged(
                nested("networkPolicy.external.mlflow.to", []),
                {"mlflow": {"enabled": False, "externalUrl": "https://mlflow.example"}},
            ),
            "networkPolicy.external.mlflow.to names no addresses",
        ),
        (nested("priorityClasses.enabled", False), "steps.quota counts pods by their priority class"),
        ({"settings": {"CT_TRACKING_URI": "http://other"}}, "settings.CT_TRACKING_URI is made from"),
        ({"settings": {"CT_SERVING_LOAD_MIB": "4096"}}, "settings.CT_SERVING_LOAD_MIB is made from"),
        (nested("signing.existingSecret", "signing"), "list its public key in signing.trustedKeys"),
        (nested("signing.trustedKeys", ["A" * 120]), "nothing signs them"),
        ({"settings": {"CT_TRUSTED_KEYS": "A"}}, "settings.CT_TRUSTED_KEYS is made from"),
        (nested("serving.trial.memoryMiB", 513), "would take more than half of serving.resources.limits.memory (2Gi)"),
        (nested("serving.resources.limits.memory", "1500Mi"), "serving.trial.memoryMiB: two trials may run at a time"),
        (
            {"serving": {"services": {"heavy": {"trial": {"memoryMiB": 1024}}}}},
            "serving.services.heavy.trial.memoryMiB",
        ),
    ],
    ids=lambda value: value.split(":")[0][:40] if isinstance(value, str) else "",
)
def test_what_cannot_work_together_is_refused_with_a_sentence(values: dict[str, Any], sentence: str) -> None:
    assert sentence in _refused(merged(PRODUCTION, values))


def test_a_trusted_gateway_stands_for_keys() -> None:
    way = {"models": ["a"], "trustedGateway": True, "ingress": {"enabled": True, "host": "a.example"}}
    assert [m for m in render(merged(PRODUCTION, {"serving": way})) if m["kind"] == "Ingress"]


def test_all_problems_are_told_at_once() -> None:
    message = _refused({})
    for sentence in ("Nowhere to keep state", "No online store", "No database for MLflow", "Nowhere to keep models"):
        assert sentence in message


def test_a_trial_without_its_secrets_is_refused() -> None:
    for part in ("credentials", "postgresql", "redis"):
        assert f"{part}.existingSecret" in _refused(merged(LOCAL, {part: {"existingSecret": ""}}))
