"""Rendering the chart, and finding things in what was rendered."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from typing import Any

import yaml

from training.settings import ROOT

HELM = ROOT / "helm"
CHART = HELM / "perennial"
NAMESPACE = "ml"
Manifest = dict[str, Any]

#: What a production install must say at least.
PRODUCTION: dict[str, Any] = {
    "state": {"uris": {name: f"s3://bucket/{name}" for name in ("landing", "lake", "work", "ledger")}},
    "credentials": {"existingSecret": "perennial-credentials"},
    "steps": {"shareNamespace": True},
    "networkPolicy": {
        "external": {
            name: {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}
            for name in ("objectStore", "database", "onlineStore", "mlflow")
        }
    },
    "mlflow": {
        "database": {"existingSecret": "mlflow-database"},
        "artifacts": {"uri": "s3://bucket/mlflow"},
        "login": {"existingSecret": "mlflow-login"},
    },
}


#: Steps and Airflow in namespaces of their own.
APART: dict[str, Any] = {
    "steps": {
        "namespace": "ml-steps",
        "shareNamespace": False,
        "launchers": [
            {"name": "airflow-scheduler", "namespace": "airflow"},
            {"name": "airflow-triggerer", "namespace": "airflow"},
        ],
    }
}


def values_file(name: str) -> dict[str, Any]:
    return yaml.safe_load((CHART / name).read_text())


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """As Helm merges `-f a -f b`."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else deepcopy(value)
    return result


def nested(path: str, value: Any) -> dict[str, Any]:
    """`nested("a.b", 1)` is {"a": {"b": 1}}."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


@cache
def _chart() -> Any:
    import helm_python

    return helm_python.Chart.load(CHART)


def render(values: Mapping[str, Any], name: str = "perennial", **kwargs: Any) -> list[Manifest]:
    """Every object of the release, hooks included. Raises helm_python.HelmError when the chart refuses the values."""
    rendered = _chart().render(dict(values), name=name, namespace=NAMESPACE, **kwargs)
    texts = [text for path, text in rendered.items() if path.endswith(".yaml")]
    # The parser in C: the one in Python takes twice as long as Helm and Kubernetes' schemas together.
    return [manifest for text in texts for manifest in yaml.load_all(text, yaml.CSafeLoader) if manifest]


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The first of this name: that of the release's own namespace comes before those of others."""
    found, *_ = [m for m in of_kind(manifests, kind) if m["metadata"]["name"] == name]
    return found


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Name of its owner and pod template of everything that makes pods."""
    for manifest in of_kind(manifests, "Deployment", "StatefulSet", "Job"):
        yield manifest["metadata"]["name"], manifest["spec"]["template"]
    for manifest in of_kind(manifests, "CronJob"):
        yield manifest["metadata"]["name"], manifest["spec"]["jobTemplate"]["spec"]["template"]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector of `matchLabels` alone takes these labels."""
    assert set(selector) <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def environment(container: Manifest) -> dict[str, Any]:
    """Name → value, or where it comes from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}
