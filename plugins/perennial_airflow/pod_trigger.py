"""Waiting for a step's pod in the triggerer, and copying its log meanwhile."""

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.providers.cncf.kubernetes.utils.pod_manager import AsyncPodManager
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from perennial_airflow.launchers import log_line
from perennial_airflow.pod_spec import CONTAINER


def seconds_since(since: datetime | None) -> int | None:
    """The cluster takes whole seconds; a line too many is dropped by `log_lines`."""
    return None if since is None else max(1, math.ceil((datetime.now(UTC) - since).total_seconds()) + 1)


def log_lines(lines: Iterable[str], since: datetime | None, until: datetime | None = None) -> Iterator[str]:
    """Of lines with time stamps before them: those from `since` on and before `until`, without their stamps."""
    for line in lines:
        stamp, _, text = line.partition(" ")
        try:
            at = datetime.fromisoformat(stamp)
        except ValueError:  # The log of a container that could not be read says so in place of a log.
            yield line
            continue
        if (since is None or at >= since) and (until is None or at < until):
            yield text


def copy_log(client: Any, pod: Any, since: datetime | None, log: Any) -> None:
    """Copy what the triggerer has not copied yet: the lines from `since` on, the second that it read up to."""
    try:
        lines = client.read_namespaced_pod_log(
            pod.metadata.name,
            pod.metadata.namespace,
            container=CONTAINER,
            timestamps=True,
            since_seconds=seconds_since(since),
            _preload_content=False,
        )
        for line in log_lines((raw.decode(errors="replace") for raw in lines), since):
            log_line(line, log)
    except (ApiException, HTTPError) as error:
        log.warning("The log of pod %s cannot be read: %s", pod.metadata.name, error)


class StepPodTrigger(KubernetesPodTrigger):
    """The provider's trigger, which copies every line once: the provider's reads overlap by up to a second."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.{type(self).__name__}", super().serialize()[1]

    @cached_property
    def pod_manager(self) -> AsyncPodManager:
        return _PodManager(async_hook=self.hook)


class _PodManager(AsyncPodManager):
    async def fetch_container_logs_before_current_sec(
        self, pod: Any, container_name: str, since_time: datetime | None = None
    ) -> Any:
        """Copy the lines since `since_time` up to a whole second, and return that second.

        When the log cannot be read now, return `since_time`: the pod is watched on, and the lines come later.
        """
        # A line may come a moment after its time stamp.
        until = datetime.fromtimestamp(math.floor(datetime.now(UTC).timestamp()) - 1, UTC)
        name = pod.metadata.name
        try:
            lines = await self._hook.read_logs(
                name=name,
                namespace=pod.metadata.namespace,
                container_name=container_name,
                since_seconds=seconds_since(since_time),
            )
        except Exception as error:
            self.log.warning("The log of pod %s cannot be read: %s", name, error)
            return since_time
        for line in log_lines(lines, since_time, until):
            log_line(line, self.log)
        return until
