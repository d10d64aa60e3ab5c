"""Lists whose items have a key, by Kubernetes' schema: server-side apply refuses one in which a key comes twice."""

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

VERSION = "1.36"


@cache
def _definitions() -> dict[str, Any]:
    import kubernetes_validate

    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{VERSION}.0-local"
    return dict(json.loads((folder / "_definitions.json").read_text())["$defs"])


def _schema_of(kind: str, version: str) -> dict[str, Any]:
    """The schema of a kind; empty for a custom resource."""
    group, _, version = version.rpartition("/")
    wanted = {"group": group, "kind": kind, "version": version}
    found = [d for d in _definitions().values() if wanted in d.get("x-kubernetes-group-version-kind", [])]
    return found[0] if found else {}


def repeated_keys(manifest: dict[str, Any]) -> list[str]:
    """Where in `manifest` a list has two items with the same key: `spec.…containers[0].env: name=HOME`."""
    return list(_repeated(manifest, _schema_of(manifest["kind"], manifest["apiVersion"]), ""))


def _repeated(node: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    if "$ref" in schema:
        schema = _definitions()[schema["$ref"].rpartition("/")[2]]
    if isinstance(node, dict):
        for name, value in node.items():
            below = schema.get("properties", {}).get(name, schema.get("additionalProperties") or {})
            yield from _repeated(value, below, f"{path}.{name}".lstrip("."))
    elif isinstance(node, list):
        for said, count in Counter(_keys(node, schema)).items():
            if count > 1:
                yield f"{path}: {said}"
        for number, item in enumerate(node):
            yield from _repeated(item, schema.get("items", {}), f"{path}[{number}]")


def _keys(items: list[Any], schema: dict[str, Any]) -> Iterator[str]:
    if schema.get("x-kubernetes-list-type") == "set":
        yield from map(str, items)
    names = schema.get("x-kubernetes-list-map-keys", [])
    # Ports are told apart by their protocol too, which manifests leave out.
    defaults = {"protocol": "TCP"}
    for item in items if names else []:
        yield ", ".join(f"{name}={item.get(name, defaults.get(name))}" for name in names)
    # Also by name, which the API server refuses in a container's ports.
    if "containerPort" in names or "port" in names:
        yield from (f"name={item['name']}" for item in items if "name" in item)
