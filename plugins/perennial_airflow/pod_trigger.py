"""Waits for a step's pod in the triggerer, and copies its log meanwhile."""

import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError

from perennial_airflow.compat.cncf_kubernetes import PodManager
from perennial_airflow.pod_spec import CONTAINER
from perennial_airflow.step_output import log_line


def seconds_since(since: datetime | None) -> int | None:
    """The seconds since `since`, rounded up: the cluster takes whole seconds. `log_lines` drops what is too old."""
    return None if since is None else max(1, math.ceil((datetime.now(UTC) - since).total_seconds()) + 1)


def log_lines(lines: Iterable[str], since: datetime | None, until: datetime | None = None) -> Iterator[str]:
    """The lines with a time stamp from `since` on and before `until`, without the stamp each begins with."""
    for line in lines:
        stamp, _, text = line.partition(" ")
        try:
            at = datetime.fromisoformat(stamp)
        except ValueError:  # Not a log line: the cluster says why it cannot read the log.
            yield line
            continue
        if (since is None or at >= since) and (until is None or at < until):
            yield text


def copy_log(client: Any, pod: Any, since: datetime | None, log: Any) -> None:
    """Copy the lines from `since` on, up to which the triggerer has copied the pod's log."""
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
    """The provider's trigger, but each line of the log is copied once: the provider's reads overlap by a second."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.{type(self).__name__}", super().serialize()[1]

    @cached_property
    def pod_manager(self) -> PodManager:
        return PodManager(self.hook, seconds_since, self._copy)

    def _copy(self, lines: Iterable[str], since: datetime | None) -> datetime:
        """Copy `lines` from `since` up to a whole second, and return that second."""
        # A line may arrive a moment after its time stamp.
        until = datetime.fromtimestamp(math.floor(datetime.now(UTC).timestamp()) - 1, UTC)
        for line in log_lines(lines, since, until):
            log_line(line, self.log)
        return until
