"""The pod that a step runs in, as the provider builds it: held to Kubernetes' schema and to the restricted standard."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import ApiClient
from perennial_airflow.pod_environment import pod_environment
from perennial_airflow.pod_spec import Identity, step_pod
from perennial_airflow.step_process import step_environment

from tests.helm.list_keys import repeated_keys
from training.contract.errors import ConfigError
from training.contract.resources import Resources
from training.contract.steps import STEPS, step_command
from training.settings import Settings

WHO = Identity("card_fraud_train", "manual__2026-01-05T10:00:00+00:00", "train", 2, 3, "card_fraud", "train")
ARGV = step_command("train", {"model": "card_fraud", "text": "{{ not a template }}"}, "s3://bucket/results/3.json")
REMOTE = Settings(image="registry.example/training:1", results_uri="s3://bucket/results")
DEFAULT = Resources()


def rendered(asks: Resources = DEFAULT, settings: Settings = REMOTE, environ: Any = ()) -> dict[str, Any]:
    """As the provider sends it."""
    from perennial_airflow.launchers.pod import PodStepOperator

    task = PodStepOperator(task_id="train", step="train", inputs={}, kubernetes_conn_id=None)
    task.namespace, task.name = "ml", WHO.name
    task.full_pod_spec = step_pod(WHO, ARGV, dict(environ), asks, 3600, settings)
    ti = SimpleNamespace(dag_id=WHO.dag, task_id=WHO.task, map_index=WHO.map_index, try_number=WHO.attempt)
    context = {"ti": ti, "run_id": WHO.run, "dag": SimpleNamespace(), "logical_date": datetime.now(UTC)}
    pod = task.build_pod_request_obj(context, dry_run=True)
    assert task.do_xcom_push, "or the task's result is lost"
    return ApiClient().sanitize_for_serialization(pod)


def test_it_keeps_to_the_schema_and_runs_exactly_the_steps_command() -> None:
    import kubernetes_validate

    pod = rendered(Resources(gpus=1, shared_memory="1Gi", tolerations=({"key": "spot", "value": "yes"},)))
    for version in ("1.32", "1.33", "1.34"):
        kubernetes_validate.validate(pod, version, strict=True)
    assert repeated_keys({"apiVersion": "v1", "kind": "Pod", **pod}) == []
    (container,) = pod["spec"]["containers"]
    assert (container["command"], container["args"]) == (["python"], ARGV)
    assert container["image"] == "registry.example/training:1"


def test_it_keeps_to_the_restricted_pod_security_standard() -> None:
    spec = rendered()["spec"]
    assert spec["automountServiceAccountToken"] is False
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == 10001
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC", "enableServiceLinks"))
    assert all(set(volume) <= {"name", "emptyDir", "persistentVolumeClaim"} for volume in spec["volumes"])
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def test_resources_become_requests_limits_and_a_place() -> None:
    toleration = {"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}
    asks = Resources(
        cpu="4",
        memory="16Gi",
        gpus=2,
        gpu_product="NVIDIA-L4",
        shared_memory="2Gi",
        runtime_class="nvidia",
        priority_class="urgent",
        tolerations=(toleration,),
        node_selector={"zone": "a"},
    )
    spec = rendered(asks)["spec"]
    (container,) = spec["containers"]
    firm = {"memory": "16Gi", "ephemeral-storage": "4Gi", "nvidia.com/gpu": "2"}
    assert container["resources"] == {"requests": {"cpu": "4", **firm}, "limits": firm}
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4", "zone": "a"}
    assert spec["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        toleration,
    ]
    assert (spec["runtimeClassName"], spec["priorityClassName"]) == ("nvidia", "urgent")
    shm = {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}
    assert shm in spec["volumes"]
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert (spec["activeDeadlineSeconds"], spec["terminationGracePeriodSeconds"]) == (3600, 60)


def test_settings_say_where_and_name_secrets_without_holding_any() -> None:
    where = {"config_map": "settings", "secrets": "store, keys", "volume_claim": "state", "service_account": "step"}
    where |= {"priority_class": "step", "image_pull_secrets": "registry"}
    settings = Settings(image="training", home="/state", **{f"pod_{key}": value for key, value in where.items()})
    spec = rendered(settings=settings)["spec"]
    (container,) = spec["containers"]
    assert container["envFrom"] == [
        {"configMapRef": {"name": "settings"}},
        {"secretRef": {"name": "store"}},
        {"secretRef": {"name": "keys"}},
    ]
    assert {"name": "state", "persistentVolumeClaim": {"claimName": "state"}} in spec["volumes"]
    assert {"name": "state", "mountPath": "/state"} in container["volumeMounts"]
    assert (spec["serviceAccountName"], spec["priorityClassName"]) == ("step", "step")
    assert spec["imagePullSecrets"] == [{"name": "registry"}]


def test_its_environment_is_a_child_processs_without_airflows_own_and_without_secrets() -> None:
    environ = {
        **os.environ,
        "CT_HOME": "/state",
        "CT_TRACKING_URI": "http://mlflow:5000",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://…",
        "CT_LAUNCHER": "pod",
        "CT_POD_NAMESPACE": "ml",
        "CT_GIT_SHA": "of Airflow's image",
        "CT_ONLINE_STORE": "redis://:password@redis:6379/0",
        "CT_SERVING_API_KEY": "key",
    }
    child = {key: value for key, value in step_environment(environ, "train").items() if key.startswith("CT_")}
    left_out = set(child) - set(pod_environment(environ))
    assert left_out == {"CT_LAUNCHER", "CT_POD_NAMESPACE", "CT_GIT_SHA", "CT_ONLINE_STORE", "CT_SERVING_API_KEY"}
    assert pod_environment(environ).items() <= child.items()
    assert pod_environment({"CT_ONLINE_STORE": "redis://redis:6379/0"}) == {"CT_ONLINE_STORE": "redis://redis:6379/0"}
    env = rendered(environ=environ)["spec"]["containers"][0]["env"]
    assert {entry["name"]: entry["value"] for entry in env} == pod_environment(environ)


def test_the_pod_of_register_alone_mounts_the_signing_key() -> None:
    settings = REMOTE.model_copy(update={"pod_signing_secret": "signing"})
    specs = {}
    for step in STEPS:
        pod = step_pod(replace(WHO, step=step), ARGV, {}, DEFAULT, 3600, settings)
        specs[step] = ApiClient().sanitize_for_serialization(pod)["spec"]
    mounting = {step for step, spec in specs.items() if "signing" in json.dumps(spec)}
    assert mounting == {"register"}
    (container,) = specs["register"]["containers"]
    (secret,) = [each for each in specs["register"]["volumes"] if "secret" in each]
    assert secret == {"name": "signing-key", "secret": {"secretName": "signing", "defaultMode": 0o440}}
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "signing-key"]
    path = f"{mount['mountPath']}/signing-key.pem"
    assert {"name": "CT_SIGNING_KEY_FILE", "value": path} in container["env"]


def test_labels_carry_the_costs_and_annotations_the_full_names() -> None:
    metadata = rendered()["metadata"]
    labels, annotations = metadata["labels"], metadata["annotations"]
    assert labels["app.kubernetes.io/component"] == "step"
    assert labels["perennial/model"] == "card_fraud"
    assert labels["perennial/try"] == "3"
    assert annotations["perennial/run"] == WHO.run
    assert annotations["perennial/map-index"] == "2"
    assert all(len(value) <= 63 and ":" not in value and "+" not in value for value in labels.values())


def test_a_pods_name_is_of_one_try_and_fits() -> None:
    long = Identity("d" * 200, "r" * 200, "t" * 200, -1, 12, "m" * 63, "performance")
    others = [WHO, long]
    for field, value in {"dag": "x", "run": "x", "task": "x", "map_index": 0, "attempt": 4}.items():
        others.append(Identity(**{**WHO.__dict__, field: value}))
    names = [who.name for who in others]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 and name == name.lower() and "_" not in name for name in names)
    assert Identity(**WHO.__dict__).name == WHO.name == rendered()["metadata"]["name"]
    assert Identity(**{**WHO.__dict__, "attempt": 4}).task_instance == WHO.task_instance


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (Settings(results_uri="s3://bucket/results"), "CT_IMAGE"),
        (Settings(image="training"), "CT_POD_VOLUME_CLAIM"),
    ],
)
def test_a_pod_that_could_not_run_or_whose_report_could_not_be_read_is_refused(
    settings: Settings, complaint: str
) -> None:
    with pytest.raises(ConfigError) as error:
        step_pod(WHO, ARGV, {}, Resources(), 60, settings)
    assert complaint in error.value.hint


def test_the_pod_of_a_step_of_a_source_is_labelled_with_the_source() -> None:
    identity = Identity("card_payments_data", "run", "ingest", -1, 1, "card_payments", "ingest")
    assert identity.labels["perennial/source"] == "card_payments"
    assert "perennial/model" not in identity.labels
