"""Several pods that train together: an indexed Job, and the headless Service under which they find the first."""

from typing import Any

from airflow.providers.cncf.kubernetes.triggers.job import KubernetesJobTrigger
from kubernetes.client import ApiException, BatchV1Api, CoreV1Api
from kubernetes.client import models as k8s
from kubernetes_asyncio.client import BatchV1Api as AsyncBatchV1Api

from perennial_airflow.pod_ends import ended_at, finished
from perennial_airflow.pod_spec import CONTAINER, TASK_INSTANCE, Identity

#: torchrun's default.
RENDEZVOUS_PORT = 29400


def rendezvous(identity: Identity) -> str:
    """host:port of the first pod: an indexed Job's pods have the host names <job>-<index>."""
    return f"{identity.name}-0.{identity.name}:{RENDEZVOUS_PORT}"


def service(manifest: k8s.V1Job, owner: k8s.V1OwnerReference) -> k8s.V1Service:
    """Gives the pods of the Job names, from before they are ready: torchrun starts by looking for the first.

    The Job owns it, so that it goes with it.
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
    """`nodes` pods like `pod`, at once. When one ends badly all are ended: the others would wait for it for ever.

    Retries are Airflow's, as for one pod. The cluster deletes the Job and its pods `keep_seconds` after their end.
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


def start(core: CoreV1Api, batch: BatchV1Api, manifest: k8s.V1Job, log: Any) -> None:
    """Make the Job and its Service unless they are there; what is left of earlier tries is ended before."""
    name, namespace = manifest.metadata.name, manifest.metadata.namespace
    selector = f"{TASK_INSTANCE}={manifest.metadata.labels[TASK_INSTANCE]}"
    there = batch.list_namespaced_job(namespace, label_selector=selector).items
    for other in there:
        if other.metadata.name != name and not other.status.completion_time:
            log.warning("Job %s of an earlier try is still there: ending it", other.metadata.name)
            end(batch, namespace, other.metadata.name)
    made = next((one for one in there if one.metadata.name == name), None)
    made = made or batch.create_namespaced_job(namespace, manifest)
    owner = k8s.V1OwnerReference(api_version="batch/v1", kind="Job", name=name, uid=made.metadata.uid)
    try:
        core.create_namespaced_service(namespace, service(manifest, owner))
    except ApiException as error:
        if error.status != 409:
            raise


def end(batch: BatchV1Api, namespace: str, name: str) -> None:
    """Delete a Job with its pods and its Service, if it is there."""
    try:
        batch.delete_namespaced_job(name, namespace, propagation_policy="Foreground")
    except ApiException as error:
        if error.status != 404:
            raise


def telling_pod(core: CoreV1Api, namespace: str, name: str) -> Any:
    """The pod whose end was the Job's: the first that ended badly, or the one that wrote the report. May be None."""
    pods = core.list_namespaced_pod(namespace, label_selector=f"batch.kubernetes.io/job-name={name}").items
    over = [pod for pod in pods if finished(pod)]
    failed = sorted((pod for pod in over if pod.status.phase == "Failed"), key=ended_at)
    index = "batch.kubernetes.io/job-completion-index"
    first = [pod for pod in over if pod.metadata.labels.get(index) == "0"]
    return next(iter(failed + first), None)


class StepGroupTrigger(KubernetesJobTrigger):
    """The provider's trigger, which also ends the Job when its task is killed."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.{type(self).__name__}", super().serialize()[1]

    async def on_kill(self) -> None:
        async with self.hook.get_conn() as connection:
            batch = AsyncBatchV1Api(connection)
            await batch.delete_namespaced_job(self.job_name, self.job_namespace, propagation_policy="Foreground")


def trigger(manifest: k8s.V1Job, connection: str) -> StepGroupTrigger:
    return StepGroupTrigger(
        job_name=manifest.metadata.name,
        job_namespace=manifest.metadata.namespace,
        pod_names=[],
        pod_namespace=manifest.metadata.namespace,
        base_container_name=CONTAINER,
        kubernetes_conn_id=connection,
        get_logs=False,
    )


def _metadata(like: Any) -> k8s.V1ObjectMeta:
    meta = like.metadata
    return k8s.V1ObjectMeta(name=meta.name, namespace=meta.namespace, labels=meta.labels, annotations=meta.annotations)
