"""The launcher `pod`: a step is a pod of the training image. While it runs, its task waits in the triggerer."""

import os
import shlex
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Never

from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from kubernetes.client import ApiException, BatchV1Api
from kubernetes.client import models as k8s
from urllib3.exceptions import HTTPError

from perennial_airflow import pod_group
from perennial_airflow.cluster_access import ClusterAccess
from perennial_airflow.compat.cncf_kubernetes import PodOperator, times_deferred
from perennial_airflow.launchers import LAUNCHERS
from perennial_airflow.pod_cleanup import delete_old_pods, delete_pod
from perennial_airflow.pod_outcome import (
    exit_code,
    finished,
    quota_is_full,
    refused,
    result_without_pod,
    too_late,
    unwatched,
)
from perennial_airflow.pod_spec import (
    CONTAINER,
    TASK_INSTANCE,
    WORK,
    Identity,
    away_from,
    step_pod,
    work_digest,
)
from perennial_airflow.pod_trigger import StepPodTrigger, copy_log
from perennial_airflow.reports import StepFailedError, step_result
from perennial_airflow.step_task import StepTask, report_uri
from training import storage
from training.contract.errors import StepError
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.processes import POD_GRACE_SECONDS
from training.contract.resources import Resources
from training.contract.source_spec import SourceSpec, load_source_spec
from training.contract.steps import distributed_command, step_command, step_spec
from training.settings import LauncherSettings, load_settings

#: Seconds between two copies of a running pod's log to the task's log.
LOG_SECONDS = 15
#: The longest that a pod may wait for a node and for its image (training/contract/resources.py). It is added to the
#: step's time limit.
LONGEST_WAIT = timedelta(days=2)
#: Seconds between two attempts to create a pod while the quota is full. The pause grows from the first to the second
#: number, because each attempt needs a worker.
QUOTA_PAUSE_SECONDS = (15, 120)


@LAUNCHERS.register("pod")
class PodStepOperator(StepTask, PodOperator):
    """Runs a step in a pod of the training image, with at most one pod at a time.

    The try determines the pod's name, so any worker that resumes a try finds its pod. When the pod cannot be watched it
    is left running; the next try takes it over if it does the same work (`work_digest`) and deletes it otherwise. A
    step has succeeded when its report says so, whatever happened to the pod. The pod of a successful step is deleted at
    once, a failed one after CT_POD_KEEP_FAILED_SECONDS.

    While the namespace's quota is full the task is deferred and asks again, for `schedule_timeout_seconds`. That uses
    no try.
    """

    template_fields = StepTask.template_fields
    template_fields_renderers = StepTask.template_fields_renderers

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.get("execution_timeout") is None:
            limit = timedelta(seconds=step_spec(kwargs["step"]).timeout_seconds + 2 * POD_GRACE_SECONDS)
            kwargs["execution_timeout"] = limit + LONGEST_WAIT
        settings = load_settings()
        pod: dict[str, Any] = {
            "kubernetes_conn_id": settings.pod_connection or None,
            "namespace": settings.pod_namespace or None,
            "base_container_name": CONTAINER,
            "random_name_suffix": False,
            "do_xcom_push": True,
            "deferrable": True,
            "logging_interval": LOG_SECONDS,
            # The provider would read every event of the namespace each time.
            "log_events_on_startup": False,
            # This class deletes the pod, after it has read the report.
            "on_finish_action": "keep_pod",
            "termination_grace_period": POD_GRACE_SECONDS,
        }
        super().__init__(**{**pod, **kwargs})

    def run_step(self, context: Any, waiting_since: datetime | None = None) -> dict[str, Any]:
        """`waiting_since`: since when this try has waited for room in the quota."""
        settings = load_settings()
        try:
            identity, resources = self._prepare(context, settings)
            uri = report_uri(settings, context["ti"])
            argv = self._argv(identity, resources, uri)
            deadline = resources.active_deadline_seconds or step_spec(self.step).timeout_seconds
            self.full_pod_spec = step_pod(identity, argv, os.environ, resources, deadline, settings)
            work = work_digest(self.step, self.all_inputs, resources, settings.image)
            self.full_pod_spec.metadata.annotations[WORK] = work
        except StepError as error:
            raise StepFailedError(f"{self.step}: {error}", None if error.retryable else 1) from None
        self.log.info("Pod %s: %s", identity.name, shlex.join(["python", *argv]))
        self.name = identity.name
        request = self.build_pod_request_obj(context)
        if resources.nodes > 1:
            wait = resources.schedule_timeout_seconds + resources.startup_timeout_seconds
            keep = settings.pod_keep_failed_seconds
            self._start_group(pod_group.job(request, resources.nodes, deadline + wait, keep), context)
        try:
            self.pod = self.get_or_create_pod(request, context)
        except ApiException as error:
            if quota_is_full(error):
                self._wait_for_quota(error, identity.name, waiting_since or datetime.now(UTC))
            raise refused(identity.name, error) from None
        if finished(self.pod):
            # No deferral: for a pod that has already ended the provider's deferral drops the result.
            name = self.pod.metadata.name
            return self._resume(context, {"status": "success", "name": name, "namespace": self._namespace})
        self.wait_for_pod(context)
        raise AssertionError("A pod that has not ended defers its task")

    @property
    def _namespace(self) -> str:
        assert self.pod is not None
        return str(self.pod.metadata.namespace)

    @cached_property
    def access(self) -> ClusterAccess:
        return ClusterAccess.of(self.kubernetes_conn_id)

    @cached_property
    def hook(self) -> KubernetesHook:
        return self.access.hook()

    def defer(self, *, trigger: Any, **kwargs: Any) -> Never:
        arguments = {**trigger.serialize()[1], **self.access.trigger_arguments}
        super().defer(trigger=StepPodTrigger(**arguments), **kwargs)

    def trigger_reentry(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Resumes the task when the trigger has seen the end of the pod, or cannot watch it any more."""
        return self.conclude(lambda: self._resume(context, event), context)

    def group_reentry(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Like trigger_reentry, for a step of several nodes."""
        return self.conclude(lambda: self._resume_group(context, event), context)

    def quota_reentry(self, context: Any, event: Any, waiting_since: str) -> dict[str, Any]:
        """Tries again to create the pod that the quota had no room for."""
        return self.conclude(lambda: self.run_step(context, datetime.fromisoformat(waiting_since)), context)

    def _wait_for_quota(self, error: ApiException, name: str, since: datetime) -> None:
        """Defer the task until the next attempt. Returns when the time for waiting is over."""
        waited = (datetime.now(UTC) - since).total_seconds()
        left = self.schedule_timeout_seconds - waited
        if left <= 0:
            return
        shortest, longest = QUOTA_PAUSE_SECONDS
        pause = min(max(shortest, waited), longest, left)
        self.log.info("Pod %s waits for room in the quota, for %.0f s so far: %s", name, waited, error.body)
        trigger, again = TimeDeltaTrigger(timedelta(seconds=pause)), {"waiting_since": since.isoformat()}
        StepTask.defer(self, trigger=trigger, method_name="quota_reentry", kwargs=again)

    def build_pod_request_obj(self, context: Any = None, *, dry_run: bool = False) -> k8s.V1Pod:
        # Airflow stores the result because of this option. The provider would add a sidecar container because of it.
        self.do_xcom_push = False
        try:
            pod = super().build_pod_request_obj(context, dry_run=dry_run)
        finally:
            self.do_xcom_push = True
        # The provider drops fields that are False when it merges manifests.
        pod.spec.automount_service_account_token = False
        pod.spec.enable_service_links = False
        return pod

    def get_or_create_pod(self, pod_request_obj: k8s.V1Pod, context: Any) -> k8s.V1Pod:
        """The pod of this try if it exists, else one of an earlier try that does the same work, else a new one."""
        name, namespace = pod_request_obj.metadata.name, pod_request_obj.metadata.namespace
        delete_old_pods(self.client, namespace, load_settings().pod_keep_failed_seconds, self.log)
        tries = f"{TASK_INSTANCE}={pod_request_obj.metadata.labels[TASK_INSTANCE]}"
        pods = self.client.list_namespaced_pod(namespace, label_selector=tries).items
        found = next((pod for pod in pods if pod.metadata.name == name), None)
        found = found or next((pod for pod in pods if self._usable(pod, finished(pod), context)), None)
        for pod in pods:
            if pod is not found and not finished(pod):
                self.log.warning("Deleting pod %s of an earlier try: it does other work", pod.metadata.name)
                delete_pod(self.client, pod)
        if found is not None:
            self.log.info("Pod %s already exists (%s): taking it over", found.metadata.name, found.status.phase)
            return found
        pod_request_obj.spec.affinity = away_from({pod.spec.node_name for pod in pods if pod.spec.node_name})
        storage.remove(report_uri(load_settings(), context["ti"]))
        return self.pod_manager.create_pod(pod_request_obj)

    def _usable(self, earlier: Any, over: bool, context: Any) -> bool:
        """Whether a pod or Job of an earlier try does this try's work, and still runs or left a report of success."""
        assert self.full_pod_spec is not None
        meta, work = earlier.metadata, self.full_pod_spec.metadata.annotations[WORK]
        if (meta.annotations or {}).get(WORK) != work or meta.deletion_timestamp is not None:
            return False
        if not over:
            return True
        try:
            step_result(step_spec(self.step), 0, self._report(meta.name, context))
        except StepFailedError:
            return False
        return True

    def _report(self, name: str, context: Any) -> str:
        """The URI of the report that the pod or Job `name` writes."""
        return report_uri(load_settings(), context["ti"], Identity.attempt_of(name))

    def _prepare(self, context: Any, settings: LauncherSettings) -> tuple[Identity, Resources]:
        """The identity and the resources of this try's pod. Sets the provider's time limits."""
        inputs = self.all_inputs
        spec: SourceSpec | ModelSpec
        if "source" in inputs:
            spec = load_source_spec(str(inputs["source"]), settings.feature_repo)
        else:
            spec = load_model_spec(str(inputs.get("model")), settings.models_dir, settings.feature_repo)
        resources = spec.resources.of(self.step, inputs.get("estimator"))
        self.schedule_timeout_seconds = resources.schedule_timeout_seconds
        self.startup_timeout_seconds = resources.startup_timeout_seconds
        return Identity.of(context["ti"], spec.name, self.step), resources

    def _argv(self, identity: Identity, resources: Resources, uri: str) -> list[str]:
        if resources.nodes > 1 or resources.gpus > 1:
            where, processes = pod_group.rendezvous(identity), max(1, resources.gpus)
            return distributed_command(
                self.step, self.all_inputs, uri, nodes=resources.nodes, processes=processes, rendezvous=where
            )
        return step_command(self.step, self.all_inputs, uri)

    def _resume(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        spec, uri = step_spec(self.step), self._report(event["name"], context)
        try:
            self.pod = self.hook.get_pod(event["name"], event["namespace"])
        except (ApiException, HTTPError) as error:
            if getattr(error, "status", None) == 404:
                return result_without_pod(spec, event["name"], uri)
            raise unwatched(event["name"], error) from None
        since = event.get("last_log_time")
        since = datetime.fromisoformat(since) if isinstance(since, str) else since
        if event["status"] != "timeout" and not finished(self.pod):
            self._watch_again(context, event, since)
        copy_log(self.client, self.pod, since, self.log)
        if not finished(self.pod):
            delete_pod(self.client, self.pod)
            raise too_late(self.pod)
        result = step_result(spec, exit_code(self.pod), uri)
        delete_pod(self.client, self.pod, wait=False)
        return result

    def _watch_again(self, context: Any, event: dict[str, Any], since: Any) -> None:
        """Defer the task again: the trigger could not read the pod, which may still run.

        Raises StepFailedError when that has happened too often.
        """
        times = times_deferred(event)
        if times >= self.MAX_REDEFER_ATTEMPTS:
            raise unwatched(event["name"], event.get("message"))
        self.log.warning("Pod %s could not be watched (%s): trying again", event["name"], event.get("message"))
        self._prepare(context, load_settings())
        self.wait_for_pod(context, since, times + 1)

    def _start_group(self, manifest: k8s.V1Job, context: Any) -> Never:
        name, namespace = manifest.metadata.name, manifest.metadata.namespace
        try:
            name = pod_group.start(
                self.client, self._batch, manifest, lambda job, over: self._usable(job, over, context), self.log
            )
        except ApiException as error:
            raise refused(name, error) from None
        self._defer_to_group(name, namespace)

    def _defer_to_group(self, name: str, namespace: str, looks: int = 0) -> Never:
        trigger = pod_group.trigger(name, namespace, self.access, looks)
        StepTask.defer(self, trigger=trigger, method_name="group_reentry")

    @property
    def _batch(self) -> BatchV1Api:
        return BatchV1Api(self.client.api_client)

    def _resume_group(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        name, namespace = event["name"], event["namespace"]
        spec, uri = step_spec(self.step), self._report(name, context)
        try:
            over = event["status"] != "unwatched" or pod_group.ended(self._batch, namespace, name)
            pod = pod_group.decisive_pod(self.client, namespace, name) if over else None
        except (ApiException, HTTPError) as error:
            raise unwatched(name, error) from None
        if not over:
            if event["looks"] >= self.MAX_REDEFER_ATTEMPTS:
                raise unwatched(name, event["message"])
            self._defer_to_group(name, namespace, event["looks"] + 1)
        if pod is None:
            if event["status"] == "error":
                raise StepFailedError(f"{name}: {event['message']}", attempts=2)
            return result_without_pod(spec, name, uri)
        copy_log(self.client, pod, None, self.log)
        result = step_result(spec, exit_code(pod), uri)
        pod_group.delete_job(self._batch, namespace, name)
        return result
