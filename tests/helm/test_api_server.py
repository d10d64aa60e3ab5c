"""What schemas do not say and only an API server refuses: names, labels, quantities, numbers that contradict others.

The rules are those of Kubernetes' validation (pkg/apis/*/validation, apimachinery/pkg/util/validation).
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.helm.chart import PRODUCTION, Manifest, merged, of_kind, pods, render
from tests.helm.conftest import EVERYTHING, HEAVY, LOCAL

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"|[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
SUBDOMAIN = re.compile(rf"{LABEL.pattern}(\.{LABEL.pattern})*")
QUANTITY = re.compile(r"([0-9.]+)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
FACTORS = {"m": "0.001", "k": "1e3", "M": "1e6", "G": "1e9", "T": "1e12"} | {
    f"{letter}i": str(1024**power) for power, letter in enumerate("KMGT", 1)
}
#: A CronJob appends eleven characters to the names of its Jobs, and a Deployment or a Job up to seventeen to its pods.
LONGEST = {"CronJob": 52, "Job": 63, "Service": 63, "Deployment": 63, "StatefulSet": 52}


@pytest.fixture(scope="module", params=["long name", "everything", "trial"])
def release(request: pytest.FixtureRequest) -> list[Manifest]:
    if request.param == "trial":
        return render(LOCAL)
    if request.param == "long name":
        short = {"serving": {"services": {"b": {}}}}
        return render(
            merged(PRODUCTION, EVERYTHING, short), name="a-release-whose-name-is-as-long-as-helm-takes-them-53"
        )
    return render(merged(PRODUCTION, EVERYTHING, HEAVY))


def _maps(node: Any, key: str) -> Iterator[dict[str, str]]:
    """Every mapping under `key`, at any depth."""
    for name, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if name == key and isinstance(value, dict):
            yield value
        yield from _maps(value, key)


def _amount(quantity: Any) -> Decimal:
    found = QUANTITY.fullmatch(str(quantity))
    assert found, f"{quantity!r} is no quantity"
    return Decimal(found[1]) * Decimal(FACTORS.get(found[2], "1"))


def test_names_are_short_enough_and_of_the_characters_that_are_taken(release: list[Manifest]) -> None:
    for manifest in release:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        assert len(name) <= LONGEST.get(kind, 253), (kind, name)
        # Names of Services and of what pods are named after are labels, without dots.
        assert (LABEL if kind in LONGEST else SUBDOMAIN).fullmatch(name), (kind, name)


def test_labels_and_selectors_have_values_that_are_taken(release: list[Manifest]) -> None:
    for manifest in release:
        for key in ("labels", "matchLabels", "selector", "nodeSelector"):
            for labels in _maps(manifest, key):
                for name, value in labels.items():
                    if isinstance(value, str):
                        assert len(value) <= 63, (manifest["metadata"]["name"], name, value)
                        assert LABEL_VALUE.fullmatch(value), (manifest["metadata"]["name"], name, value)
                        assert len(name.rpartition("/")[2]) <= 63


def test_parts_of_pods_have_names_that_are_taken(release: list[Manifest]) -> None:
    for owner, pod in pods(release):
        containers = pod["spec"]["containers"]
        for each in [*containers, *pod["spec"]["volumes"]]:
            assert len(each["name"]) <= 63, owner
            assert LABEL.fullmatch(each["name"]), owner
        names = [port["name"] for container in containers for port in container.get("ports", [])]
        assert [name for name in names if len(name) > 15 or not LABEL.fullmatch(name)] == [], owner
        for container in containers:
            assert all(re.fullmatch(r"[-._a-zA-Z][-._a-zA-Z0-9]*", each["name"]) for each in container["env"]), owner


def test_no_container_requests_more_than_its_limit(release: list[Manifest]) -> None:
    for owner, pod in pods(release):
        for container in pod["spec"]["containers"]:
            resources = container["resources"]
            for name, limit in resources["limits"].items():
                assert _amount(resources["requests"].get(name, limit)) <= _amount(limit), (owner, name)


def test_defaults_of_a_limit_range_lie_within_its_maximum(release: list[Manifest]) -> None:
    for manifest in of_kind(release, "LimitRange"):
        for limits in manifest["spec"]["limits"]:
            for name, most in limits["max"].items():
                request, default = limits["defaultRequest"].get(name, 0), limits["default"].get(name, most)
                assert _amount(request) <= _amount(default) <= _amount(most)


def test_keys_of_config_maps_can_become_files_and_variables(release: list[Manifest]) -> None:
    for manifest in of_kind(release, "ConfigMap"):
        assert all(re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) for key in manifest["data"])
        assert sum(len(value) for value in manifest["data"].values()) < 1_000_000


def test_numbers_do_not_contradict_each_other(release: list[Manifest]) -> None:
    for owner, pod in pods(release):
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
        for container in pod["spec"]["containers"]:
            sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {"seconds": 0})
            assert sleep["seconds"] < grace, owner
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                numbers = [value for key, value in container.get(probe, {}).items() if key.endswith(("Seconds", "old"))]
                assert all(isinstance(number, int) and number > 0 for number in numbers), (owner, probe)
            live = container.get("livenessProbe", {})
            assert live.get("successThreshold", 1) == 1, owner
    for job in of_kind(release, "Job"):
        assert job["spec"]["template"]["spec"]["restartPolicy"] in {"Never", "OnFailure"}
    for scaler in of_kind(release, "HorizontalPodAutoscaler"):
        assert 1 <= scaler["spec"]["minReplicas"] <= scaler["spec"]["maxReplicas"]
    for each in of_kind(release, "PriorityClass"):
        assert -(2**31) <= each["value"] <= 1_000_000_000
        assert not each["metadata"]["name"].startswith("system-")
