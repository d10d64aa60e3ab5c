"""Deletes step pods: the pod of a try, and failed pods that were kept for inspection long enough."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from kubernetes.client import ApiException
from kubernetes.client import models as k8s

from perennial_airflow.pod_outcome import ended_at, finished
from perennial_airflow.pod_spec import STEP_LABELS
from perennial_airflow.reports import StepFailedError
from training.contract.processes import POD_GRACE_SECONDS

#: A pod is kept at least this long after its end: its task may not have read its state yet.
MINIMUM_KEEP_SECONDS = 3600


def delete_pod(client: Any, pod: k8s.V1Pod, wait: bool = True) -> None:
    """Delete `pod`, and with `wait` return only when it is gone and so writes nothing any more.

    Raises StepFailedError when the pod is still there after its grace period.
    """
    name, namespace = pod.metadata.name, pod.metadata.namespace
    with suppress_missing():
        client.delete_namespaced_pod(name, namespace)
        deadline = time.monotonic() + POD_GRACE_SECONDS + 30
        while wait and time.monotonic() < deadline:
            client.read_namespaced_pod(name, namespace)
            time.sleep(0.5)
        if wait:
            problem = f"Pod {name} was deleted but does not end; its node may be down"
            raise StepFailedError(f"{problem}\n  → kubectl describe pod {name}")


def delete_old_pods(client: Any, namespace: str, keep_seconds: int, log: Any) -> None:
    """Delete the step pods of all tasks that ended more than `keep_seconds` ago.

    Every step does this when it starts, so no other program has to. While no step starts there are no new pods.
    """
    selector = ",".join(f"{key}={value}" for key, value in STEP_LABELS.items())
    oldest = datetime.now(UTC) - timedelta(seconds=max(keep_seconds, MINIMUM_KEEP_SECONDS))
    for pod in client.list_namespaced_pod(namespace, label_selector=selector).items:
        if finished(pod) and ended_at(pod) < oldest:
            log.info("Deleting pod %s: it ended more than %d s ago", pod.metadata.name, keep_seconds)
            delete_pod(client, pod, wait=False)


@contextmanager
def suppress_missing() -> Iterator[None]:
    """Ignore the cluster's answer 404."""
    try:
        yield
    except ApiException as error:
        if error.status != 404:
            raise
