"""What Argo CD does on a cluster: it applies the rendered chart server-side, again and again, and compares."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.helm.chart import Manifest, merged, of_kind, render, values_file
from tests.kubernetes.cluster import Namespace

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1800)]
MANAGER = "argocd-controller"


def _apply(space: Namespace, manifest: Manifest, dry_run: bool) -> Any:
    """As `kubectl apply --server-side --field-manager argocd-controller --force-conflicts`."""
    from kubernetes import client
    from kubernetes.dynamic import DynamicClient

    resource = DynamicClient(client.ApiClient()).resources.get(
        api_version=manifest["apiVersion"], kind=manifest["kind"]
    )
    return resource.server_side_apply(
        body=manifest,
        name=manifest["metadata"]["name"],
        namespace=manifest["metadata"].get("namespace", space.name) if resource.namespaced else None,
        field_manager=MANAGER,
        force_conflicts=True,
        **({"dry_run": "All"} if dry_run else {}),
    ).to_dict()


def _rendered(space: Namespace) -> list[Manifest]:
    """The trial, with names of its own where they are cluster-wide, and without hooks, which Argo CD runs apart."""
    own = {"images": {"registry": space.images, "tag": space.tag}, "priorityClasses": {"prefix": space.name}}
    found = render(merged(values_file("values-local.yaml"), own))
    return [manifest for manifest in found if "helm.sh/hook" not in manifest["metadata"].get("annotations", {})]


@pytest.fixture(scope="module")
def synced(bare: Namespace) -> Iterator[Namespace]:
    """After a first sync."""
    from kubernetes import client

    try:
        for manifest in _rendered(bare):
            _apply(bare, manifest, dry_run=False)
        yield bare
    finally:
        # All else goes with the namespace.
        for manifest in of_kind(_rendered(bare), "PriorityClass"):
            client.SchedulingV1Api().delete_priority_class(manifest["metadata"]["name"])


def _wanted(live: Any) -> Any:
    """An object without what the cluster itself writes."""
    meta = {key: value for key, value in live["metadata"].items() if key in {"name", "labels", "annotations"}}
    return {**{key: value for key, value in live.items() if key not in {"status", "metadata"}}, "metadata": meta}


def test_a_second_sync_changes_nothing(synced: Namespace) -> None:
    for manifest in _rendered(synced):
        before, after = (_apply(synced, manifest, dry_run=dry_run) for dry_run in (False, True))
        name = (manifest["kind"], manifest["metadata"]["name"])
        assert after["metadata"]["uid"] == before["metadata"]["uid"], name
        assert after["metadata"].get("generation") == before["metadata"].get("generation"), name
        assert _wanted(after) == _wanted(before), name


def test_what_is_rendered_is_what_the_cluster_keeps(synced: Namespace) -> None:
    """A field that the API server drops or rewrites is a difference that Argo CD would try to mend for ever."""
    for manifest in _rendered(synced):
        live = _apply(synced, manifest, dry_run=True)
        assert _missing(manifest, live) == [], (manifest["kind"], manifest["metadata"]["name"])


def _missing(wanted: Any, live: Any, path: str = "") -> list[str]:
    """Where `live` has not what `wanted` has. The cluster may add fields, and write a number as it likes."""
    if isinstance(wanted, dict):
        lacks = [f"{path}.{key}" for key in wanted if wanted[key] not in (None, "", [], {}) and key not in live]
        return lacks + [
            each for key in wanted.keys() & live.keys() for each in _missing(wanted[key], live[key], f"{path}.{key}")
        ]
    if isinstance(wanted, list):
        if len(wanted) != len(live):
            return [path]
        pairs = enumerate(zip(wanted, live, strict=True))
        return [each for at, (one, other) in pairs for each in _missing(one, other, f"{path}[{at}]")]
    return [] if str(wanted) == str(live) else [f"{path}: {wanted!r} became {live!r}"]
