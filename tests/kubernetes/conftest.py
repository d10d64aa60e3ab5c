"""A namespace of its own in the cluster that KUBECONFIG names, with the chart's trial and Airflow in one pod.

The images: PERENNIAL_TEST_IMAGES is what stands before `/training`, `/serving`, `/mlflow`, `/airflow`, and
PERENNIAL_TEST_TAG their tag (`dev`). The cluster must be able to pull them.
"""

import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tests.helm.chart import CHART, HELM, merged, values_file
from tests.kubernetes.cluster import Namespace, airflow_pod

REASON = "needs a cluster: set KUBECONFIG and PERENNIAL_TEST_IMAGES (CONTRIBUTING.md)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not (os.environ.get("KUBECONFIG") and os.environ.get("PERENNIAL_TEST_IMAGES")):
        for item in items:
            if item.get_closest_marker("kubernetes"):
                item.add_marker(pytest.mark.skip(reason=REASON))


@contextmanager
def prepared() -> Iterator[Namespace]:
    """A namespace with the Secrets of a trial, deleted at the end."""
    space = Namespace(
        f"perennial-test-{secrets.token_hex(3)}",
        os.environ["PERENNIAL_TEST_IMAGES"],
        os.environ.get("PERENNIAL_TEST_TAG", "dev"),
    )
    space.create()
    try:
        script = ["bash", str(HELM / "local-secrets.sh"), space.name]
        space.apply(subprocess.run(script, capture_output=True, text=True, check=True).stdout)
        yield space
    finally:
        space.delete()


@contextmanager
def installed(values: Mapping[str, Any]) -> Iterator[Namespace]:
    """The trial with these values, in a namespace of its own."""
    import helm_python

    with prepared() as space:
        space.service_account("airflow")
        images = {"registry": space.images, "tag": space.tag}
        own = {"images": images, "steps": {"launchers": [{"name": "airflow", "namespace": ""}]}}
        own["priorityClasses"] = {"prefix": space.name}
        helm = helm_python.Config(namespace=space.name)
        helm.install(str(CHART), "perennial", merged(values_file("values-local.yaml"), own, values), timeout=900)
        try:
            yield space
        finally:
            helm.uninstall("perennial", ignore_not_found=True)


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    with installed({}) as space:
        space.run(airflow_pod(space))
        yield space


@pytest.fixture(scope="module")
def bare() -> Iterator[Namespace]:
    """With the Secrets of a trial, and nothing installed."""
    with prepared() as space:
        yield space


@pytest.fixture(scope="module")
def spread() -> Iterator[Namespace]:
    """A release over several nodes: its state is on a volume that all can mount, and serving is autoscaled."""
    shared = os.environ.get("PERENNIAL_TEST_SHARED_CLASS")
    if not shared:
        pytest.skip("name a storage class that offers ReadWriteMany in PERENNIAL_TEST_SHARED_CLASS")
    scaling = {"enabled": True, "minReplicas": 1, "maxReplicas": 3, "cpu": 50, "scaleDownSeconds": 30}
    values = {
        "state": {"volume": {"accessMode": "ReadWriteMany", "storageClass": shared}},
        "serving": {"autoscaling": scaling},
    }
    with installed(values) as space:
        space.run(airflow_pod(space))
        yield space


@pytest.fixture(scope="module")
def apart() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """The release, its steps and Airflow's service account in three namespaces; no pod has to run."""
    import helm_python

    images, tag = os.environ["PERENNIAL_TEST_IMAGES"], os.environ.get("PERENNIAL_TEST_TAG", "dev")
    name = f"perennial-test-{secrets.token_hex(3)}"
    release, steps, airflow = spaces = [Namespace(f"{name}{end}", images, tag) for end in ("", "-steps", "-airflow")]
    for space in spaces:
        space.create()
    try:
        airflow.service_account("airflow-scheduler")
        script = ["bash", str(HELM / "local-secrets.sh"), release.name]
        release.apply(subprocess.run(script, capture_output=True, text=True, check=True).stdout)
        uris = {each: f"s3://bucket/{each}" for each in ("landing", "lake", "work", "ledger")}
        own = {
            "images": {"registry": images, "tag": tag},
            "priorityClasses": {"prefix": name},
            "hooks": {"featureDefinitions": {"enabled": False}},
            "state": {"uris": uris, "volume": {"enabled": False}},
            "networkPolicy": {"external": {"objectStore": {"to": [{"ipBlock": {"cidr": "10.255.0.0/16"}}]}}},
            "steps": {
                "shareNamespace": False,
                "namespace": steps.name,
                "launchers": [{"name": "airflow-scheduler", "namespace": airflow.name}],
            },
        }
        helm = helm_python.Config(namespace=release.name)
        helm.install(str(CHART), "perennial", merged(values_file("values-local.yaml"), own), timeout=900)
        try:
            yield release, steps, airflow
        finally:
            helm.uninstall("perennial", ignore_not_found=True)
    finally:
        for space in spaces:
            space.delete()
