"""What holds for every object of the release, whatever the values."""

import importlib
import json
import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.cases import others_long
from tests.helm.chart import CHART, PRODUCTION, Manifest, environment, merged, named, of_kind, pods, render, selects
from tests.helm.conftest import MATRIX
from tests.helm.list_keys import repeated_keys

#: The newest three minor versions that kubernetes-validate knows.
VERSIONS = ("1.35", "1.36", "1.37")
#: Custom resources, which no schema of Kubernetes describes: their shape is asserted in the parts' tests.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "HTTPRoute"}


@pytest.mark.parametrize("version", others_long(VERSIONS))
def test_kubernetes_takes_every_object_of_every_row(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    # It parses the megabytes of all definitions again for every object.
    utils = importlib.import_module("kubernetes_validate.utils")
    monkeypatch.setattr(utils, "schema_contents", cache(utils.schema_contents))
    # Most objects are the same in several rows.
    distinct = {json.dumps(manifest): (row, manifest) for row in MATRIX for manifest in render(MATRIX[row])}
    for row, manifest in distinct.values():
        if manifest["kind"] not in CUSTOM:
            assert validate(manifest, version, strict=True) == version, row


def test_no_two_objects_have_the_same_name(manifests: list[Manifest]) -> None:
    names = [(m["apiVersion"], m["kind"], m["metadata"]["name"], m["metadata"].get("namespace")) for m in manifests]
    assert len(names) == len(set(names))


def test_no_list_has_a_key_twice(manifests: list[Manifest]) -> None:
    """Which Helm 4 and Argo CD, whose applies are server-side, refuse."""
    assert [each for manifest in manifests for each in repeated_keys(manifest)] == []


def test_a_key_that_comes_twice_is_found(production: list[Manifest]) -> None:
    pod = deepcopy(named(production, "Deployment", "perennial-serving"))
    container = pod["spec"]["template"]["spec"]["containers"][0]
    container["env"].append({"name": "HOME", "value": "/"})
    container["ports"].append({"name": "other", "containerPort": 3000, "protocol": "TCP"})
    container["volumeMounts"].append({"name": "other", "mountPath": "/tmp"})
    pod["spec"]["template"]["spec"]["volumes"].append({"name": "tmp", "emptyDir": {}})
    assert {each.rpartition(": ")[2] for each in repeated_keys(pod)} == {
        "name=HOME",
        "containerPort=3000, protocol=TCP",
        "mountPath=/tmp",
        "name=tmp",
    }


def test_variables_of_the_values_take_the_place_of_the_charts_own() -> None:
    mine = {"HOME": "/home", "MLFLOW_DISABLE_TELEMETRY": "false", "BENTOML_HOME": "/bentoml"}
    release = render(merged(PRODUCTION, {"env": mine}))
    assert [each for manifest in release for each in repeated_keys(manifest)] == []
    (container,) = named(release, "Deployment", "perennial-mlflow")["spec"]["template"]["spec"]["containers"]
    assert mine.items() <= environment(container).items()


def test_objects_say_what_they_belong_to(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "perennial"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert manifest["metadata"].get("namespace") in {None, "ml-steps", "airflow"}, "else the release's own"


def test_pods_are_restricted(manifests: list[Manifest]) -> None:
    """The restricted pod security standard, and a root filesystem that cannot be written."""
    for name, pod in pods(manifests):
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert {kind for volume in spec["volumes"] for kind in set(volume) - {"name"}} <= {
            "emptyDir",
            "configMap",
            "persistentVolumeClaim",
            "secret",
        }, name
        for container in spec["containers"] + spec.get("initContainers", []):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert not security.get("privileged"), name
            assert not any("hostPort" in port for port in container.get("ports", [])), name


def test_pods_have_no_token(manifests: list[Manifest]) -> None:
    assert all(pod["spec"]["automountServiceAccountToken"] is False for _, pod in pods(manifests))
    assert all(account["automountServiceAccountToken"] is False for account in of_kind(manifests, "ServiceAccount"))


def test_containers_say_what_they_need(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests):
        for container in pod["spec"]["containers"]:
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name


def test_servers_are_probed_and_jobs_end(manifests: list[Manifest]) -> None:
    for manifest in of_kind(manifests, "Deployment", "StatefulSet"):
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            assert {"readinessProbe", "livenessProbe"} <= container.keys(), manifest["metadata"]["name"]
    for job in of_kind(manifests, "Job"):
        assert job["spec"]["activeDeadlineSeconds"] > 0


def test_selectors_find_their_pods_and_no_others(manifests: list[Manifest]) -> None:
    templates = dict(pods(manifests))
    for manifest in of_kind(manifests, "Deployment", "StatefulSet"):
        name = manifest["metadata"]["name"]
        found = {n for n, pod in templates.items() if selects(manifest["spec"]["selector"], pod["metadata"]["labels"])}
        assert found == {name}
    for service in of_kind(manifests, "Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        found = [pod for pod in templates.values() if selects(selector, pod["metadata"]["labels"])]
        assert len(found) == 1, service["metadata"]["name"]
        ports = {p["name"]: p["containerPort"] for c in found[0]["spec"]["containers"] for p in c["ports"]}
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]


def test_probes_and_mounts_lead_somewhere(manifests: list[Manifest]) -> None:
    for manifest in of_kind(manifests, "Deployment", "StatefulSet", "Job"):
        name, pod = manifest["metadata"]["name"], manifest["spec"]["template"]
        claims = {claim["metadata"]["name"] for claim in manifest["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes | claims, name
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(paths) == len(set(paths)), name
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                action = container.get(probe, {})
                for way in ("httpGet", "tcpSocket"):
                    assert action.get(way, {}).get("port") in {None, *ports}, name


def test_what_is_referenced_exists_or_is_named_in_the_values(
    manifests: list[Manifest], request: pytest.FixtureRequest
) -> None:
    """ConfigMaps, Secrets, claims, service accounts, services, priority classes."""
    values = MATRIX[request.node.callspec.params["manifests"]]
    external = set(re.findall(r"'(?:existingSecret|existingClaim|tlsSecret)': '([^']+)'", str(values)))
    external |= set(values.get("images", {}).get("pullSecrets", []))
    have = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    for kind, name in _references([spec for _, pod in pods(manifests) for spec in [pod["spec"]]]):
        assert (kind, name) in have or (kind in {"Secret", "PersistentVolumeClaim"} and name in external), (kind, name)
    assert not of_kind(manifests, "Secret"), "none is made silently"
    for route in of_kind(manifests, "Ingress"):
        backend = route["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        assert ("Service", backend["name"]) in have
        assert {tls["secretName"] for tls in route["spec"].get("tls", [])} <= external
    for binding in of_kind(manifests, "RoleBinding"):
        assert ("Role", binding["roleRef"]["name"]) in have
    for stateful in of_kind(manifests, "StatefulSet"):
        assert ("Service", stateful["spec"]["serviceName"]) in have
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) in have


def _references(node: Any, key: str = "") -> set[tuple[str, str]]:
    kinds = {"configMapRef": "ConfigMap", "configMap": "ConfigMap", "secretRef": "Secret", "secretKeyRef": "Secret"}
    found: set[tuple[str, str]] = set()
    if isinstance(node, list):
        return {each for item in node for each in _references(item, key)}
    if not isinstance(node, dict):
        return found
    if key in kinds or key == "imagePullSecrets":
        found.add((kinds.get(key, "Secret"), node["name"]))
    if key == "secret" and "secretName" in node:
        found.add(("Secret", node["secretName"]))
    if key == "persistentVolumeClaim":
        found.add(("PersistentVolumeClaim", node["claimName"]))
    for name, value in node.items():
        if name == "serviceAccountName":
            found.add(("ServiceAccount", value))
        elif name == "priorityClassName":
            found.add(("PriorityClass", value))
        else:
            found |= _references(value, name)
    return found


def test_a_second_release_beside_the_first_takes_no_name_of_it() -> None:
    names = [{(m["kind"], m["metadata"]["name"]) for m in render(PRODUCTION, name=name)} for name in ("perennial", "b")]
    assert names[0] & names[1] == set()


def test_the_same_values_give_the_same_objects(manifests: list[Manifest], request: pytest.FixtureRequest) -> None:
    """Else Argo CD would find a difference at each look, and sync for ever."""
    assert render(MATRIX[request.node.callspec.params["manifests"]]) == manifests


#: Of Helm's template functions and built-in objects: what is random, of the time, of the cluster, or of Helm's history.
#: Argo CD renders without a cluster, and always as a first install.
UNSTABLE = r"\b(rand\w+|gen[A-Z]\w+|uuidv4|now|ago|lookup|shuffle|htpasswd|bcrypt|derivePassword)\b|\.Capabilities\b"
HISTORY = r"\.Release\.(Revision|IsInstall|IsUpgrade)\b"


@pytest.mark.parametrize("path", sorted((CHART / "templates").iterdir()), ids=lambda path: path.name)
def test_no_template_depends_on_more_than_the_values(path: Path) -> None:
    actions = re.findall(r"\{\{.*?\}\}", re.sub(r"\{\{-? */\*.*?\*/ *-?\}\}", "", path.read_text(), flags=re.S), re.S)
    code = re.sub(r'"[^"]*"', '""', "".join(actions))
    assert [each.group() for each in re.finditer(f"{UNSTABLE}|{HISTORY}", code)] == []
