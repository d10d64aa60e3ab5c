"""The manifest of a step's pod: name, labels, permissions, environment, resources. Calls no cluster."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import POD_NAME_MAX_LENGTH
from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value
from kubernetes.client import models as k8s

from perennial_airflow.pod_environment import pod_environment
from training import storage
from training.contract.errors import ConfigError
from training.contract.messages import SourceInputs
from training.contract.processes import POD_GRACE_SECONDS
from training.contract.resources import Resources
from training.contract.steps import SIGNING_STEPS, step_spec
from training.settings import LauncherSettings, variable

CONTAINER = "step"
GPU = "nvidia.com/gpu"
#: The chart's network policies select step pods by these labels.
STEP_LABELS = {"app.kubernetes.io/part-of": "perennial", "app.kubernetes.io/component": "step"}
#: A label: all tries of a task instance have the same value.
TASK_INSTANCE = "perennial/task-instance"
#: Where the Secret with the private key is mounted, and its key.
_SIGNING_KEY, SIGNING_KEY_FILE = "/var/run/secrets/perennial", "signing-key.pem"
#: An annotation: pods with the same value do the same work. A retry takes over such a pod of an earlier try.
WORK = "perennial/work"


@dataclass(frozen=True)
class Identity:
    """One try of one task instance."""

    dag: str
    run: str
    task: str
    map_index: int
    attempt: int
    #: The source or the model that the step is for.
    subject: str
    step: str

    @classmethod
    def of(cls, ti: Any, subject: str, step: str) -> "Identity":
        index = -1 if ti.map_index is None else ti.map_index
        return cls(str(ti.dag_id), str(ti.run_id), str(ti.task_id), index, int(ti.try_number), subject, step)

    @property
    def task_instance(self) -> str:
        """16 hex digits of SHA-256: the same for every try."""
        return hashlib.sha256("\0".join((self.dag, self.run, self.task, str(self.map_index))).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """The pod's name. It depends on the try alone, and no other try has it. A DNS label: at most 63 characters."""
        end = f"-{self.task_instance}-{self.attempt}"
        # A Job appends the number of the node and five characters to the names of its pods.
        start = re.sub(r"[^a-z0-9]+", "-", f"{self.subject}-{self.step}".lower()).strip("-")
        return start[: POD_NAME_MAX_LENGTH - len(end) - 12].strip("-") + end

    @staticmethod
    def attempt_of(name: str) -> int:
        """The number of the try that made the pod `name`."""
        return int(name.rpartition("-")[2])

    @property
    def labels(self) -> dict[str, str]:
        """For selecting pods and adding up costs by source, model, step or run. The annotations have full names."""
        labels = {f"perennial/{key}": make_safe_label_value(value) for key, value in self._names.items()}
        return {**STEP_LABELS, **labels, TASK_INSTANCE: self.task_instance}

    @property
    def annotations(self) -> dict[str, str]:
        return {f"perennial/{key}": value for key, value in self._names.items()}

    @property
    def _names(self) -> dict[str, str]:
        kind = "source" if issubclass(step_spec(self.step).inputs, SourceInputs) else "model"
        names = {kind: self.subject, "step": self.step, "dag": self.dag, "run": self.run, "task": self.task}
        index = {"map-index": str(self.map_index)} if self.map_index >= 0 else {}
        return {**names, **index, "try": str(self.attempt)}


def work_digest(step: str, inputs: Mapping[str, Any], resources: Resources, image: str | None) -> str:
    """16 hex digits of the SHA-256 of what a pod does: its step, inputs, resources and image, not the try."""
    content = json.dumps([step, inputs, resources.model_dump(mode="json"), image], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def step_pod(
    identity: Identity,
    argv: Sequence[str],
    environ: Mapping[str, str],
    resources: Resources,
    deadline: int,
    settings: LauncherSettings,
) -> k8s.V1Pod:
    """The pod that runs Python with the arguments `argv`. It keeps to the restricted pod security standard.

    The cluster ends it after `deadline` seconds, even when Airflow is down. Raises ConfigError when the settings name
    no image, or no place for the report that Airflow and the pod share.
    """
    if not settings.image:
        raise ConfigError("Step pods have no image", hint="Set CT_IMAGE to the training image.")
    if not storage.is_remote(settings.results) and not settings.pod_volume_claim:
        problem = f"Airflow could not read the report of a step pod: {settings.results} would be a folder of the pod"
        raise ConfigError(problem, hint="Set CT_RESULTS_URI to an object store, or CT_POD_VOLUME_CLAIM.")
    volumes = _volumes(resources, settings)
    more = list[k8s.V1EnvVar]()
    if identity.step in SIGNING_STEPS and settings.pod_signing_secret:
        secret = k8s.V1SecretVolumeSource(secret_name=settings.pod_signing_secret, default_mode=0o440)
        volumes[_SIGNING_KEY] = k8s.V1Volume(name="signing-key", secret=secret)
        more = [k8s.V1EnvVar(name=variable("signing_key_file"), value=f"{_SIGNING_KEY}/{SIGNING_KEY_FILE}")]
    container = k8s.V1Container(
        name=CONTAINER,
        image=settings.image,
        image_pull_policy=settings.pod_image_pull_policy,
        command=["python"],
        args=list(argv),
        env=[k8s.V1EnvVar(name=name, value=value) for name, value in sorted(pod_environment(environ).items())] + more,
        env_from=_env_from(settings),
        resources=_requirements(resources),
        volume_mounts=[k8s.V1VolumeMount(name=volume.name, mount_path=path) for path, volume in volumes.items()],
        security_context=k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
        ),
        termination_message_policy="FallbackToLogsOnError",
    )
    metadata = k8s.V1ObjectMeta(name=identity.name, labels=identity.labels, annotations=identity.annotations)
    spec = k8s.V1PodSpec(
        containers=[container],
        restart_policy="Never",
        active_deadline_seconds=deadline,
        termination_grace_period_seconds=POD_GRACE_SECONDS,
        automount_service_account_token=False,
        enable_service_links=False,
        service_account_name=settings.pod_service_account or None,
        image_pull_secrets=[k8s.V1LocalObjectReference(name=name) for name in _names(settings.pod_image_pull_secrets)],
        priority_class_name=resources.priority_class or settings.pod_priority_class or None,
        runtime_class_name=resources.runtime_class,
        node_selector=_node_selector(resources),
        tolerations=_tolerations(resources),
        security_context=k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=settings.pod_user,
            run_as_group=0,
            fs_group=0,
            fs_group_change_policy="OnRootMismatch",
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
        volumes=list(volumes.values()),
    )
    return k8s.V1Pod(api_version="v1", kind="Pod", metadata=metadata, spec=spec)


def away_from(nodes: set[str]) -> k8s.V1Affinity | None:
    """Prefer other nodes than these. The fault that ended a try on a node may end the next one there, too."""
    if not nodes:
        return None
    # Kubernetes takes one value per requirement on a field.
    others = [
        k8s.V1NodeSelectorRequirement(key="metadata.name", operator="NotIn", values=[node]) for node in sorted(nodes)
    ]
    term = k8s.V1PreferredSchedulingTerm(weight=100, preference=k8s.V1NodeSelectorTerm(match_fields=others))
    return k8s.V1Affinity(node_affinity=k8s.V1NodeAffinity(preferred_during_scheduling_ignored_during_execution=[term]))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _env_from(settings: LauncherSettings) -> list[k8s.V1EnvFromSource]:
    maps = [
        k8s.V1EnvFromSource(config_map_ref=k8s.V1ConfigMapEnvSource(name=n)) for n in _names(settings.pod_config_map)
    ]
    secrets = [k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=n)) for n in _names(settings.pod_secrets)]
    return maps + secrets


def _requirements(resources: Resources) -> k8s.V1ResourceRequirements:
    limits = {"memory": resources.memory, "ephemeral-storage": resources.ephemeral_storage}
    if resources.gpus:
        limits[GPU] = str(resources.gpus)
    return k8s.V1ResourceRequirements(requests={"cpu": resources.cpu, **limits}, limits=limits)


def _node_selector(resources: Resources) -> dict[str, str]:
    product = {f"{GPU}.product": resources.gpu_product} if resources.gpu_product else {}
    return {**product, **resources.node_selector}


def _tolerations(resources: Resources) -> list[k8s.V1Toleration]:
    gpu = [k8s.V1Toleration(key=GPU, operator="Exists", effect="NoSchedule")] if resources.gpus else []
    return gpu + [k8s.V1Toleration(**toleration.model_dump(exclude_none=True)) for toleration in resources.tolerations]


def _volumes(resources: Resources, settings: LauncherSettings) -> dict[str, k8s.V1Volume]:
    """Mount path → volume. The root filesystem is read-only."""
    volumes = {"/tmp": k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource())}
    if resources.shared_memory:
        memory = k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=resources.shared_memory)
        volumes["/dev/shm"] = k8s.V1Volume(name="shared-memory", empty_dir=memory)
    if settings.pod_volume_claim:
        claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=settings.pod_volume_claim)
        path = settings.pod_volume_path or str(settings.home)
        volumes[path] = k8s.V1Volume(name="state", persistent_volume_claim=claim)
    return volumes
