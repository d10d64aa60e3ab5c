"""Private parts of the provider cncf-kubernetes. Importing this takes seconds: it imports the Kubernetes client."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator  # noqa: TID253 only for pods
from airflow.providers.cncf.kubernetes.utils.pod_manager import AsyncPodManager

#: A key of the event with which the provider's pod trigger resumes a task: how often the task was deferred again.
_REDEFER_COUNT = "_redefer_count"
#: Called with the log's lines and `since`, the end of the last call. Returns the end of what it has copied.
CopyLines = Callable[[Iterable[str], datetime | None], datetime]


class PodOperator(KubernetesPodOperator):
    """The provider's operator, deferred by `wait_for_pod`."""

    def wait_for_pod(self, context: Any, since: Any = None, deferred: int = 0) -> None:
        """Defer the task until its pod has ended; the log up to `since` has been copied.

        `deferred`: how often the task was deferred before because its pod could not be watched.
        """
        if deferred:
            self.trigger_kwargs = {_REDEFER_COUNT: deferred}
        self.invoke_defer_method(since, context)

    def convert_config_file_to_dict(self) -> None:
        """The provider reads KUBECONFIG here, for the trigger. ClusterAccess.trigger_arguments replaces that."""
        self._config_dict = None


def times_deferred(event: dict[str, Any]) -> int:
    """How often the task was deferred before because its pod could not be watched."""
    return int(event.get(_REDEFER_COUNT, 0))


class PodManager(AsyncPodManager):
    """The provider's reader of logs in the triggerer, with `copy` to copy them.

    When a log cannot be read, the pod is still watched; the next call reads the lines.
    """

    def __init__(self, hook: Any, seconds_since: Callable[[datetime | None], int | None], copy: CopyLines) -> None:
        super().__init__(async_hook=hook)
        self._seconds_since = seconds_since
        self._copy = copy

    async def fetch_container_logs_before_current_sec(
        self, pod: Any, container_name: str, since_time: datetime | None = None
    ) -> Any:
        """Copy the lines since `since_time`; returns the time up to which they were copied."""
        name = pod.metadata.name
        try:
            lines = await self._hook.read_logs(
                name=name,
                namespace=pod.metadata.namespace,
                container_name=container_name,
                since_seconds=self._seconds_since(since_time),
            )
        except Exception as error:
            self.log.warning("The log of pod %s cannot be read: %s", name, error)
            return since_time
        return self._copy(lines, since_time)
