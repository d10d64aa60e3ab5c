"""The pod that a step runs in: its name, its labels, what it may and what it gets. Knows no cluster."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import POD_NAME_MAX_LENGTH
from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value
from kubernetes.client import models as k8s

from perennial_airflow.launchers import step_environment
from training import storage
from training.contract.errors import ConfigError
from training.contract.resources import Resources
from training.settings import Settings

CONTAINER = "step"
GPU = "nvidia.com/gpu"
#: What the chart's network policies select step pods by.
STEP_LABELS = {"app.kubernetes.io/part-of": "perennial", "app.kubernetes.io/component": "step"}
#: The tries of one task instance have this label in common.
TASK_INSTANCE = "perennial/task-instance"
#: An annotation. Two pods do the same work when it is equal: a retry goes on with such a pod of an earlier try.
WORK = "perennial/work"
#: A step that is told to stop writes its checkpoint in this time.
GRACE_SECONDS = 60
#: The image knows its own commit; the rest is for Airflow.
_NOT_FOR_STEPS = re.compile(r"CT_(GIT_SHA|LAUNCHER|FORKSERVER_SOCKET|SERVING_API_KEY|POD_\w+)")


@dataclass(frozen=True)
class Identity:
    """One try of one task instance."""

    dag: str
    run: str
    task: str
    map_index: int
    attempt: int
    model: str
    step: str

    @classmethod
    def of(cls, ti: Any, model: str, step: str) -> "Identity":
        index = -1 if ti.map_index is None else ti.map_index
        return cls(str(ti.dag_id), str(ti.run_id), str(ti.task_id), index, int(ti.try_number), model, step)

    @property
    def task_instance(self) -> str:
        """16 hex digits of SHA-256: the same for every try."""
        return hashlib.sha256("\0".join((self.dag, self.run, self.task, str(self.map_index))).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """Of the pod: the same whoever computes it, and of no other try. A label of DNS, so at most 63 characters."""
        end = f"-{self.task_instance}-{self.attempt}"
        # A Job adds the number of the node and five characters to its pods' names.
        start = re.sub(r"[^a-z0-9]+", "-", f"{self.model}-{self.step}".lower()).strip("-")
        return start[: POD_NAME_MAX_LENGTH - len(end) - 12].strip("-") + end

    @staticmethod
    def attempt_of(name: str) -> int:
        """The number of the try that the pod called `name` was made for."""
        return int(name.rpartition("-")[2])

    @property
    def labels(self) -> dict[str, str]:
        """By these the costs of a model, a step or a run can be added up. The full names are in the annotations."""
        labels = {f"perennial/{key}": make_safe_label_value(value) for key, value in self._names.items()}
        return {**STEP_LABELS, **labels, TASK_INSTANCE: self.task_instance}

    @property
    def annotations(self) -> dict[str, str]:
        return {f"perennial/{key}": value for key, value in self._names.items()}

    @property
    def _names(self) -> dict[str, str]:
        names = {"model": self.model, "step": self.step, "dag": self.dag, "run": self.run, "task": self.task}
        index = {"map-index": str(self.map_index)} if self.map_index >= 0 else {}
        return {**names, **index, "try": str(self.attempt)}


def work_digest(step: str, inputs: Mapping[str, Any], asks: Resources, image: str | None) -> str:
    """16 hex digits of SHA-256 of what a pod does: its step, inputs, resources and image, but not the try."""
    content = json.dumps([step, inputs, asks.model_dump(mode="json"), image], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def pod_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The `CT_*` of a task that its step's pod gets: what a child process would see, less what is Airflow's own.

    A value that holds a secret is left out: a pod's manifest can be read by many. It comes by CT_POD_SECRETS.
    """
    settings = {name: value for name, value in step_environment(environ).items() if name.startswith("CT_")}
    return {
        name: value
        for name, value in settings.items()
        if not _NOT_FOR_STEPS.fullmatch(name) and not _holds_password(value)
    }


def step_pod(
    identity: Identity,
    argv: Sequence[str],
    environ: Mapping[str, str],
    asks: Resources,
    deadline: int,
    settings: Settings,
) -> k8s.V1Pod:
    """The pod that runs the interpreter's arguments `argv`, under the restricted pod security standard.

    The cluster ends it after `deadline` seconds, whether Airflow lives or not. Raises ConfigError when it could not run
    or its result could not be read.
    """
    if not settings.image:
        raise ConfigError("There is no image to make a step pod of", hint="Set CT_IMAGE to the training image.")
    if not storage.is_remote(settings.results) and not settings.pod_volume_claim:
        problem = f"A step pod's report at {settings.results} could not be read from here"
        raise ConfigError(problem, hint="Set CT_RESULTS_URI to an object store, or CT_POD_VOLUME_CLAIM.")
    volumes = _volumes(asks, settings)
    container = k8s.V1Container(
        name=CONTAINER,
        image=settings.image,
        image_pull_policy=settings.pod_image_pull_policy,
        command=["python"],
        args=list(argv),
        env=[k8s.V1EnvVar(name=name, value=value) for name, value in sorted(pod_environment(environ).items())],
        env_from=_env_from(settings),
        resources=_requirements(asks),
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
        termination_grace_period_seconds=GRACE_SECONDS,
        automount_service_account_token=False,
        enable_service_links=False,
        service_account_name=settings.pod_service_account or None,
        image_pull_secrets=[k8s.V1LocalObjectReference(name=name) for name in _names(settings.pod_image_pull_secrets)],
        priority_class_name=asks.priority_class or settings.pod_priority_class or None,
        runtime_class_name=asks.runtime_class,
        node_selector=_node_selector(asks),
        tolerations=_tolerations(asks),
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
    """To be scheduled on another node than these, if there is one: what ended a try there may end the next."""
    if not nodes:
        return None
    # A field takes one value per requirement.
    others = [
        k8s.V1NodeSelectorRequirement(key="metadata.name", operator="NotIn", values=[node]) for node in sorted(nodes)
    ]
    term = k8s.V1PreferredSchedulingTerm(weight=100, preference=k8s.V1NodeSelectorTerm(match_fields=others))
    return k8s.V1Affinity(node_affinity=k8s.V1NodeAffinity(preferred_during_scheduling_ignored_during_execution=[term]))


def _holds_password(value: str) -> bool:
    try:
        return urlsplit(value).password is not None
    except ValueError:
        return False


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _env_from(settings: Settings) -> list[k8s.V1EnvFromSource]:
    maps = [
        k8s.V1EnvFromSource(config_map_ref=k8s.V1ConfigMapEnvSource(name=n)) for n in _names(settings.pod_config_map)
    ]
    secrets = [k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=n)) for n in _names(settings.pod_secrets)]
    return maps + secrets


def _requirements(asks: Resources) -> k8s.V1ResourceRequirements:
    firm = {"memory": asks.memory, "ephemeral-storage": asks.ephemeral_storage}
    if asks.gpus:
        firm[GPU] = str(asks.gpus)
    return k8s.V1ResourceRequirements(requests={"cpu": asks.cpu, **firm}, limits=firm)


def _node_selector(asks: Resources) -> dict[str, str]:
    product = {f"{GPU}.product": asks.gpu_product} if asks.gpu_product else {}
    return {**product, **asks.node_selector}


def _tolerations(asks: Resources) -> list[k8s.V1Toleration]:
    gpu = [k8s.V1Toleration(key=GPU, operator="Exists", effect="NoSchedule")] if asks.gpus else []
    return gpu + [k8s.V1Toleration(**toleration.model_dump(exclude_none=True)) for toleration in asks.tolerations]


def _volumes(asks: Resources, settings: Settings) -> dict[str, k8s.V1Volume]:
    """Mount path → volume. The root filesystem is read-only."""
    volumes = {"/tmp": k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource())}
    if asks.shared_memory:
        memory = k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit=asks.shared_memory)
        volumes["/dev/shm"] = k8s.V1Volume(name="shared-memory", empty_dir=memory)
    if settings.pod_volume_claim:
        claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=settings.pod_volume_claim)
        path = settings.pod_volume_path or str(settings.home)
        volumes[path] = k8s.V1Volume(name="state", persistent_volume_claim=claim)
    return volumes
