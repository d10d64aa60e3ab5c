"""Helm comes as a Python package with Helm's own library in it; where that has no wheel, these tests are skipped."""

from typing import Any

import pytest

from tests.helm.chart import APART, PRODUCTION, Manifest, merged, nested, render, values_file

try:
    import helm_python

    helm_python.helm_sdk_version()
    problem = None
except (ImportError, OSError, RuntimeError) as error:
    problem = f"Helm's library (helm-python-sdk) cannot be loaded here: {error}"

LOCAL, GPU = values_file("values-local.yaml"), values_file("values-gpu.yaml")
SECURE = {"redis": {"enabled": False}, "onlineStore": {"url": "rediss://redis.example:6379/0"}}
PUBLIC_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEV4E+b1zTaq6g8zY6wWgmffUVd/zN07G8BzxWzmY0qeU5weVQ4o2lnb+FEvXzl0Wbq7v2PSvXqWVO"
    "hhl32VIWEA=="
)
EVERYTHING: dict[str, Any] = {
    "images": {"registry": "registry.example/ml", "tag": "abc1234", "pullSecrets": ["pull"]},
    "settings": {"CT_LOG_LEVEL": "DEBUG"},
    "env": {"AWS_REGION": "eu-central-1"},
    "engine": {"name": "spark", "url": "sc://spark.example:15002"},
    "state": {"uris": {"results": "s3://bucket/results"}},
    "serving": {
        "models": ["card_fraud", "flight_delay"],
        "apiKeys": {"existingSecret": "callers"},
        "autoscaling": {"concurrency": {"enabled": True}},
        "nodeSelector": {"pool": "serving"},
        "tolerations": [{"key": "serving", "operator": "Exists"}],
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/serving"}},
        "ingress": {"enabled": True, "className": "nginx", "host": "fraud.example", "tlsSecret": "fraud-tls"},
        "httpRoute": {"enabled": True, "hostnames": ["fraud.example"], "parentRefs": [{"name": "public"}]},
    },
    "mlflow": {
        "credentials": {"existingSecret": "mlflow-s3"},
        "replicas": 2,
        "allowedHosts": ["mlflow.example"],
        "publicUrl": "https://mlflow.example",
    },
    "monitoring": {name: {"enabled": True} for name in ("serviceMonitor", "rules", "dashboards")},
    "networkPolicy": {
        "servingClients": [{"namespaceSelector": {"matchLabels": {"team": "payments"}}}],
        "external": {"engine": {"to": [{"ipBlock": {"cidr": "10.2.0.0/16"}}]}},
    },
    "hooks": {"codeChange": {"enabled": True}},
    "signing": {"existingSecret": "signing", "trustedKeys": [PUBLIC_KEY, PUBLIC_KEY]},
    "backup": {
        "enabled": True,
        "uri": "s3://backups/perennial",
        "airflowDatabase": {"existingSecret": "airflow-database"},
    },
}
#: A service more, with values of its own.
HEAVY: dict[str, Any] = {
    "serving": {
        "services": {
            "heavy_models": {
                "models": ["one", "two"],
                "maximumModels": 1,
                "replicas": 5,
                "autoscaling": {"enabled": False},
                "resources": {"requests": {"cpu": "2"}},
                "podDisruptionBudget": {"maxUnavailable": 2},
                "spool": {"persistence": {"enabled": True, "size": "9Gi"}},
                "nodeSelector": {"pool": "heavy"},
            },
            "light": None,
        },
    },
}
#: Values files as their users combine them, and switches that change what is rendered.
MATRIX: dict[str, dict[str, Any]] = {
    "production": PRODUCTION,
    "local": LOCAL,
    "gpu": merged(PRODUCTION, GPU),
    "everything": merged(PRODUCTION, EVERYTHING),
    "services": merged(PRODUCTION, HEAVY),
    "namespaces": merged(PRODUCTION, EVERYTHING, APART),
    "everything, services": merged(PRODUCTION, EVERYTHING, HEAVY),
    "spool kept": merged(
        PRODUCTION, nested("serving.spool.persistence.enabled", True), nested("serving.autoscaling.enabled", False)
    ),
    "shared volume": merged(PRODUCTION, {"state": {"uris": {"landing": "", "lake": ""}, "volume": {"enabled": True}}}),
    "work on a volume": merged(PRODUCTION, {"state": {"uris": {"work": ""}, "volume": {"enabled": True}}}),
    "mlflow elsewhere": merged(PRODUCTION, {"mlflow": {"enabled": False, "externalUrl": "https://mlflow.example"}}),
    "open online store": merged(PRODUCTION, SECURE),
    "no serving": merged(PRODUCTION, nested("serving.enabled", False)),
    "bare": merged(
        LOCAL,
        nested("networkPolicy.enabled", False),
        nested("priorityClasses.enabled", False),
        {"steps": {"quota": {"enabled": False}, "limits": {"enabled": False}}},
        {"hooks": {"migrate": {"enabled": False}, "featureDefinitions": {"enabled": False}}},
        nested("serving.podDisruptionBudget.enabled", False),
    ),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if problem is not None:
        for item in items:
            if "/tests/helm/" in str(item.path):
                item.add_marker(pytest.mark.skip(reason=problem))


@pytest.fixture(scope="session", params=MATRIX)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """The release for one row of the matrix."""
    return render(MATRIX[request.param])


@pytest.fixture(scope="session")
def production() -> list[Manifest]:
    return render(PRODUCTION)


@pytest.fixture(scope="session")
def everything() -> list[Manifest]:
    return render(MATRIX["everything"])
