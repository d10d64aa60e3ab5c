"""The ends of pods that nobody needs any more: one try's, and those that were kept to be looked at."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from kubernetes.client import ApiException
from kubernetes.client import models as k8s

from perennial_airflow.pod_ends import ended_at, finished
from perennial_airflow.pod_spec import GRACE_SECONDS, STEP_LABELS
from perennial_airflow.reports import StepFailedError

#: A pod that has just ended is not swept away: its task may not have looked at it yet.
UNREAD_SECONDS = 3600


def end(client: Any, pod: k8s.V1Pod, wait: bool = True) -> None:
    """Delete `pod` and wait until it is gone, so that nothing of it writes any more. Raises StepFailedError."""
    name, namespace = pod.metadata.name, pod.metadata.namespace
    with suppress_missing():
        client.delete_namespaced_pod(name, namespace)
        deadline = time.monotonic() + GRACE_SECONDS + 30
        while wait and time.monotonic() < deadline:
            client.read_namespaced_pod(name, namespace)
            time.sleep(0.5)
        if wait:
            problem = f"Pod {name} does not end; its node may be out of reach"
            raise StepFailedError(f"{problem}\n  → kubectl describe pod {name}")


def sweep(client: Any, namespace: str, keep_seconds: int, log: Any) -> None:
    """Delete step pods that ended longer than `keep_seconds` ago, whosever they are.

    Done by every step that starts, because then nothing else has to run; while no step starts there are no new ones.
    """
    selector = ",".join(f"{key}={value}" for key, value in STEP_LABELS.items())
    oldest = datetime.now(UTC) - timedelta(seconds=max(keep_seconds, UNREAD_SECONDS))
    for pod in client.list_namespaced_pod(namespace, label_selector=selector).items:
        if finished(pod) and ended_at(pod) < oldest:
            log.info("Pod %s ended long ago: deleting it", pod.metadata.name)
            end(client, pod, wait=False)


@contextmanager
def suppress_missing() -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        if error.status != 404:
            raise
