"""Several pods that train together: an indexed Job, and the headless Service through which they find the first."""

from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from functools import cached_property
from typing import Any

from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
from airflow.providers.cncf.kubernetes.triggers.job import KubernetesJobTrigger
from airflow.triggers.base import TriggerEvent
from kubernetes.client import ApiException, BatchV1Api, CoreV1Api
from kubernetes.client import models as k8s
from kubernetes_asyncio.client import BatchV1Api as AsyncBatchV1Api

from perennial_airflow.cluster_access import ClusterAccess
from perennial_airflow.pod_outcome import ended_at, finished
from perennial_airflow.pod_spec import CONTAINER, TASK_INSTANCE, Identity

#: The default port of torchrun.
RENDEZVOUS_PORT = 29400


def rendezvous(identity: Identity) -> str:
    """host:port of the first pod. The host names of an indexed Job's pods are <job>-<index>."""
    return f"{identity.name}-0.{identity.name}:{RENDEZVOUS_PORT}"


def service(manifest: k8s.V1Job, owner: k8s.V1OwnerReference) -> k8s.V1Service:
    """The Service that gives the Job's pods names in DNS. They have them before they are ready, as torchrun needs it.

    The Job owns the Service, so Kubernetes deletes both together.
    """
    spec = k8s.V1ServiceSpec(
        cluster_ip="None",
        publish_not_ready_addresses=True,
        selector={"batch.kubernetes.io/job-name": manifest.metadata.name},
        ports=[k8s.V1ServicePort(name="rendezvous", port=RENDEZVOUS_PORT)],
    )
    metadata = _metadata(manifest)
    metadata.owner_references = [owner]
    return k8s.V1Service(api_version="v1", kind="Service", metadata=metadata, spec=spec)


def job(pod: k8s.V1Pod, nodes: int, deadline: int, keep_seconds: int) -> k8s.V1Job:
    """A Job of `nodes` pods like `pod`, all at once. When one fails, all end: the others would wait for it forever.

    Airflow retries, not the Job. The cluster deletes the Job and its pods `keep_seconds` after their end.
    """
    template = k8s.V1PodTemplateSpec(
        metadata=k8s.V1ObjectMeta(labels=pod.metadata.labels, annotations=pod.metadata.annotations), spec=pod.spec
    )
    template.spec.subdomain = pod.metadata.name
    template.spec.active_deadline_seconds = None
    spec = k8s.V1JobSpec(
        completion_mode="Indexed",
        completions=nodes,
        parallelism=nodes,
        backoff_limit=0,
        active_deadline_seconds=deadline,
        ttl_seconds_after_finished=keep_seconds,
        template=template,
    )
    return k8s.V1Job(api_version="batch/v1", kind="Job", metadata=_metadata(pod), spec=spec)


def start(
    core: CoreV1Api, batch: BatchV1Api, manifest: k8s.V1Job, usable: Callable[[k8s.V1Job, bool], bool], log: Any
) -> str:
    """Create the Job and its Service unless they exist, and return the Job's name.

    A Job of an earlier try is taken over when `usable(job, over)` says so. Other Jobs of earlier tries are deleted.
    """
    name, namespace = manifest.metadata.name, manifest.metadata.namespace
    selector = f"{TASK_INSTANCE}={manifest.metadata.labels[TASK_INSTANCE]}"
    jobs = batch.list_namespaced_job(namespace, label_selector=selector).items
    found = next((one for one in jobs if one.metadata.name == name), None)
    found = found or next((one for one in jobs if usable(one, over(one))), None)
    for other in jobs:
        if other is not found and not over(other):
            log.warning("Deleting Job %s of an earlier try: it still runs", other.metadata.name)
            delete_job(batch, namespace, other.metadata.name)
    if found is not None:
        log.info("Job %s already exists: taking it over", found.metadata.name)
        manifest.metadata.name = found.metadata.name
    found = found or batch.create_namespaced_job(namespace, manifest)
    owner = k8s.V1OwnerReference(api_version="batch/v1", kind="Job", name=found.metadata.name, uid=found.metadata.uid)
    try:
        core.create_namespaced_service(namespace, service(manifest, owner))
    except ApiException as error:
        if error.status != 409:
            raise
    return str(found.metadata.name)


def over(job: k8s.V1Job) -> bool:
    """Whether all pods of the Job have ended, with success or not."""
    return any(c.type in ("Complete", "Failed") and c.status == "True" for c in job.status.conditions or [])


def ended(batch: BatchV1Api, namespace: str, name: str) -> bool:
    """Whether the Job is over or deleted. Raises ApiException or HTTPError when the cluster does not answer."""
    try:
        return over(batch.read_namespaced_job(name, namespace))
    except ApiException as error:
        if error.status != 404:
            raise
        return True


def delete_job(batch: BatchV1Api, namespace: str, name: str) -> None:
    """Delete a Job with its pods and its Service, if it exists."""
    try:
        batch.delete_namespaced_job(name, namespace, propagation_policy="Foreground")
    except ApiException as error:
        if error.status != 404:
            raise


def decisive_pod(core: CoreV1Api, namespace: str, name: str) -> Any:
    """The pod that decides how the Job ended: the first that failed, or else the first node's. May be None."""
    pods = core.list_namespaced_pod(namespace, label_selector=f"batch.kubernetes.io/job-name={name}").items
    ended_pods = [pod for pod in pods if finished(pod)]
    failed = sorted((pod for pod in ended_pods if pod.status.phase == "Failed"), key=ended_at)
    index = "batch.kubernetes.io/job-completion-index"
    first = [pod for pod in ended_pods if pod.metadata.labels.get(index) == "0"]
    return next(iter(failed + first), None)


class StepGroupTrigger(KubernetesJobTrigger):
    """The provider's trigger, which also deletes the Job when its task is killed.

    When it cannot read the Job it sends an event with the status `unwatched`. `looks` is the number of such events
    before; the event carries it. `access` has the fields of a ClusterAccess.
    """

    def __init__(self, *, access: dict[str, Any], looks: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.access = access
        self.looks = looks

    def serialize(self) -> tuple[str, dict[str, Any]]:
        kwargs = {**super().serialize()[1], "access": self.access, "looks": self.looks}
        return f"{__name__}.{type(self).__name__}", kwargs

    @cached_property
    def hook(self) -> AsyncKubernetesHook:
        return ClusterAccess(**self.access).async_hook()

    async def run(self) -> AsyncIterator[TriggerEvent]:
        try:
            async for event in super().run():
                yield event
        except Exception as error:  # says nothing about the Job, so the task must not fail
            self.log.exception("Job %s cannot be watched", self.job_name)
            job = {"name": self.job_name, "namespace": self.job_namespace}
            yield TriggerEvent({"status": "unwatched", **job, "message": str(error), "looks": self.looks})

    async def on_kill(self) -> None:
        async with self.hook.get_conn() as connection:
            batch = AsyncBatchV1Api(connection)
            await batch.delete_namespaced_job(self.job_name, self.job_namespace, propagation_policy="Foreground")


def trigger(name: str, namespace: str, access: ClusterAccess, looks: int = 0) -> StepGroupTrigger:
    return StepGroupTrigger(
        access=asdict(access),
        looks=looks,
        job_name=name,
        job_namespace=namespace,
        pod_names=[],
        pod_namespace=namespace,
        base_container_name=CONTAINER,
        get_logs=False,
    )


def _metadata(like: Any) -> k8s.V1ObjectMeta:
    meta = like.metadata
    return k8s.V1ObjectMeta(name=meta.name, namespace=meta.namespace, labels=meta.labels, annotations=meta.annotations)
