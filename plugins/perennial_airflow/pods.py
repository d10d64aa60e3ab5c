"""Steps as pods: the launcher for a cluster. The task waits in the triggerer, and any worker can take it up again."""

import os
import shlex
from datetime import datetime, timedelta
from typing import Any, Never

from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator  # noqa: TID253 only CT_LAUNCHER=pod
from kubernetes.client import ApiException, BatchV1Api
from kubernetes.client import models as k8s
from urllib3.exceptions import HTTPError

from perennial_airflow import pod_group
from perennial_airflow.launchers import log_line
from perennial_airflow.operators import StepTask, report_uri
from perennial_airflow.pod_cleanup import end, sweep
from perennial_airflow.pod_ends import exit_code, finished, gone, not_in_time
from perennial_airflow.pod_spec import (
    CONTAINER,
    GRACE_SECONDS,
    TASK_INSTANCE,
    Identity,
    away_from,
    step_pod,
)
from perennial_airflow.pod_trigger import StepPodTrigger, log_lines, seconds_since
from perennial_airflow.reports import StepFailedError, step_result
from training import storage
from training.contract.errors import StepError
from training.contract.model_spec import load_model_spec
from training.contract.resources import Resources
from training.contract.steps import StepSpec, distributed_command, step_command, step_spec
from training.settings import Settings, load_settings

#: The log of a running pod is copied to the task's so often.
LOG_SECONDS = 15
#: What a pod may wait for a node and for its image at most (training/contract/resources.py), on top of its time limit.
LONGEST_WAIT = timedelta(days=2)


class PodStepOperator(StepTask, KubernetesPodOperator):
    """Runs a step in a pod of the training image: exactly one pod for each try, whoever looks after it.

    A pod's name follows from the try, so that a worker which takes a try up again finds that pod and no other; before a
    try starts, what is left running of earlier ones is ended. A step has succeeded when its report says so, whatever
    became of the pod. Pods that succeeded are deleted then, failed ones after CT_POD_KEEP_FAILED_SECONDS.
    """

    template_fields = StepTask.template_fields
    template_fields_renderers = StepTask.template_fields_renderers

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.get("execution_timeout") is None:
            limit = timedelta(seconds=step_spec(kwargs["step"]).timeout_seconds + 2 * GRACE_SECONDS)
            kwargs["execution_timeout"] = limit + LONGEST_WAIT
        settings = load_settings()
        pod: dict[str, Any] = {
            "kubernetes_conn_id": settings.pod_connection or KubernetesHook.default_conn_name,
            "namespace": settings.pod_namespace or None,
            "base_container_name": CONTAINER,
            "random_name_suffix": False,
            "do_xcom_push": True,
            "deferrable": True,
            "logging_interval": LOG_SECONDS,
            # Each look reads every event of the namespace.
            "log_events_on_startup": False,
            # Deleting is done here, when the report has been read.
            "on_finish_action": "keep_pod",
            "termination_grace_period": GRACE_SECONDS,
        }
        super().__init__(**{**pod, **kwargs})

    def run_step(self, context: Any) -> dict[str, Any]:
        settings = load_settings()
        try:
            identity, asks = self._asks(context, settings)
            uri = report_uri(settings, context["ti"])
            argv = self._argv(identity, asks, uri)
            deadline = asks.active_deadline_seconds or step_spec(self.step).timeout_seconds
            self.full_pod_spec = step_pod(identity, argv, os.environ, asks, deadline, settings)
        except StepError as error:
            raise StepFailedError(f"{self.step}: {error}", None if error.retryable else 1) from None
        self.log.info("Pod %s: %s", identity.name, shlex.join(["python", *argv]))
        self.name = identity.name
        request = self.build_pod_request_obj(context)
        if asks.nodes > 1:
            wait = asks.schedule_timeout_seconds + asks.startup_timeout_seconds
            self._start_group(pod_group.job(request, asks.nodes, deadline + wait, settings.pod_keep_failed_seconds))
        try:
            self.pod = self.get_or_create_pod(request, context)
        except ApiException as error:
            raise _refused(identity.name, error) from None
        if finished(self.pod):
            # Here, because of a pod that has ended already the provider's way to defer drops the result.
            return self._resume(context, {"status": "success", "name": identity.name, "namespace": self._namespace})
        self.invoke_defer_method(context=context)
        raise AssertionError("A pod that has not ended defers its task")

    @property
    def _namespace(self) -> str:
        assert self.pod is not None
        return str(self.pod.metadata.namespace)

    def defer(self, *, trigger: Any, **kwargs: Any) -> Never:
        super().defer(trigger=StepPodTrigger(**trigger.serialize()[1]), **kwargs)

    def trigger_reentry(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """Where the task goes on when the trigger has seen the pod's end, or lost sight of it."""
        return self.conclude(lambda: self._resume(context, event), context)

    def group_reentry(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        """As trigger_reentry, for a step of several nodes."""
        return self.conclude(lambda: self._resume_group(context, event), context)

    def build_pod_request_obj(self, context: Any = None, *, dry_run: bool = False) -> k8s.V1Pod:
        # To Airflow this flag says that the result is kept, to the provider that there is a sidecar to read it from.
        self.do_xcom_push = False
        try:
            pod = super().build_pod_request_obj(context, dry_run=dry_run)
        finally:
            self.do_xcom_push = True
        # The provider's merge of manifests drops what is False.
        pod.spec.automount_service_account_token = False
        pod.spec.enable_service_links = False
        return pod

    def get_or_create_pod(self, pod_request_obj: k8s.V1Pod, context: Any) -> k8s.V1Pod:
        """The pod of this try: the one that is there, or a new one when no earlier try's is running any more."""
        name, namespace = pod_request_obj.metadata.name, pod_request_obj.metadata.namespace
        sweep(self.client, namespace, load_settings().pod_keep_failed_seconds, self.log)
        earlier, nodes = f"{TASK_INSTANCE}={pod_request_obj.metadata.labels[TASK_INSTANCE]}", set[str]()
        for pod in self.client.list_namespaced_pod(namespace, label_selector=earlier).items:
            if pod.metadata.name == name:
                self.log.info("Pod %s is there already (%s): taking it up again", name, pod.status.phase)
                return pod
            nodes |= {pod.spec.node_name} if pod.spec.node_name else set()
            if not finished(pod):
                self.log.warning("Pod %s of an earlier try is still there: ending it", pod.metadata.name)
                end(self.client, pod)
        pod_request_obj.spec.affinity = away_from(nodes)
        storage.remove(report_uri(load_settings(), context["ti"]))
        return self.pod_manager.create_pod(pod_request_obj)

    def _asks(self, context: Any, settings: Settings) -> tuple[Identity, Resources]:
        inputs = self.all_inputs
        spec = load_model_spec(str(inputs.get("model")), settings.models_dir)
        asks = spec.resources.of(self.step, inputs.get("estimator"))
        self.schedule_timeout_seconds = asks.schedule_timeout_seconds
        self.startup_timeout_seconds = asks.startup_timeout_seconds
        return Identity.of(context["ti"], spec.name, self.step), asks

    def _argv(self, identity: Identity, asks: Resources, uri: str) -> list[str]:
        if asks.nodes > 1 or asks.gpus > 1:
            where, processes = pod_group.rendezvous(identity), max(1, asks.gpus)
            return distributed_command(
                self.step, self.all_inputs, uri, nodes=asks.nodes, processes=processes, rendezvous=where
            )
        return step_command(self.step, self.all_inputs, uri)

    def _resume(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        settings, spec = load_settings(), step_spec(self.step)
        uri = report_uri(settings, context["ti"])
        try:
            self.pod = self.hook.get_pod(event["name"], event["namespace"])
        except ApiException as error:
            if error.status != 404:
                raise
            return _result_without_pod(spec, event["name"], uri)
        since = event.get("last_log_time")
        since = datetime.fromisoformat(since) if isinstance(since, str) else since
        if event["status"] == "error" and not finished(self.pod):
            self._watch_again(context, event, since)
        self._copy_log(self.pod, since)
        if not finished(self.pod):
            end(self.client, self.pod)
            raise not_in_time(self.pod)
        result = step_result(spec, exit_code(self.pod), uri)
        end(self.client, self.pod, wait=False)
        return result

    def _start_group(self, manifest: k8s.V1Job) -> Never:
        try:
            pod_group.start(self.client, BatchV1Api(self.client.api_client), manifest, self.log)
        except ApiException as error:
            raise _refused(manifest.metadata.name, error) from None
        StepTask.defer(
            self, trigger=pod_group.trigger(manifest, str(self.kubernetes_conn_id)), method_name="group_reentry"
        )

    def _resume_group(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        spec, uri = step_spec(self.step), report_uri(load_settings(), context["ti"])
        pod = pod_group.telling_pod(self.client, event["namespace"], event["name"])
        if pod is None:
            if event["status"] != "success":
                raise StepFailedError(f"{event['name']}: {event['message']}", attempts=2)
            return _result_without_pod(spec, event["name"], uri)
        self._copy_log(pod, None)
        result = step_result(spec, exit_code(pod), uri)
        pod_group.end(BatchV1Api(self.client.api_client), event["namespace"], event["name"])
        return result

    def _watch_again(self, context: Any, event: dict[str, Any], since: Any) -> None:
        """The trigger could not see the pod, which is no news of the pod. Raises StepFailedError when it never can."""
        times = event.get("_redefer_count", 0)
        if times >= self.MAX_REDEFER_ATTEMPTS:
            end(self.client, self.pod)
            raise StepFailedError(f"Pod {event['name']} could not be watched: {event.get('message')}")
        self.log.warning("Pod %s could not be watched (%s): once more", event["name"], event.get("message"))
        self._asks(context, load_settings())
        self.trigger_kwargs = {"_redefer_count": times + 1}
        self.invoke_defer_method(since, context)

    def _copy_log(self, pod: k8s.V1Pod, since: Any) -> None:
        """What the triggerer has not copied yet: it reads up to a whole second, and says which."""
        try:
            lines = self.client.read_namespaced_pod_log(
                pod.metadata.name,
                pod.metadata.namespace,
                container=CONTAINER,
                timestamps=True,
                since_seconds=seconds_since(since),
                _preload_content=False,
            )
            for line in log_lines((raw.decode(errors="replace") for raw in lines), since):
                log_line(line, self.log)
        except (ApiException, HTTPError) as error:
            self.log.warning("The log of pod %s cannot be read: %s", pod.metadata.name, error)


def _result_without_pod(spec: StepSpec, name: str, uri: str) -> dict[str, Any]:
    """The report is written last and is this try's own: if it says success, that is what it was."""
    try:
        return step_result(spec, 0, uri)
    except StepFailedError:
        raise gone(name) from None


def _refused(name: str, error: ApiException) -> StepFailedError:
    """Quotas pass, a manifest that breaks a rule of the cluster does not."""
    text = f"The cluster did not take pod {name}: {error.status} {error.reason}: {error.body}"
    return StepFailedError(text, attempts=1 if error.status in (400, 422) else None)
