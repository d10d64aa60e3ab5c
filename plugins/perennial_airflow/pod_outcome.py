"""How a step's pod ended: the exit code of its step, or why the cluster ended it and whether a retry can help."""

from datetime import datetime
from typing import Any

from kubernetes.client import ApiException

from perennial_airflow.pod_spec import CONTAINER
from perennial_airflow.reports import UNKNOWN_ATTEMPTS, StepFailedError, step_result
from training.contract.steps import StepSpec

#: Reasons for which a container will never start, and those that pass when the image registry recovers.
_NEVER_STARTS = {"InvalidImageName", "CreateContainerConfigError", "ErrImageNeverPull"}
_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"}
#: The reasons of a pod that lost its node. The condition DisruptionTarget reports the same.
_LOST_NODE = {"Evicted", "Preempted", "Preempting", "NodeLost", "NodeShutdown", "Terminated", "Shutdown"}


def finished(pod: Any) -> bool:
    """Whether the pod's step has ended."""
    return pod.status.phase in ("Succeeded", "Failed") or _terminated(pod) is not None


def exit_code(pod: Any) -> int:
    """The exit code of the step in `pod`. When a signal ended it: the negative signal number, as for a child process.

    Raises StepFailedError when the cluster ended the step or never started it.
    """
    name, status = pod.metadata.name, pod.status
    ended = _terminated(pod)
    if ended is not None and ended.exit_code == 0:
        return 0
    if status.reason == "DeadlineExceeded":
        problem = f"Pod {name} ran longer than its time limit and was ended by the cluster"
        raise StepFailedError(f"{problem}\n  → Raise active_deadline_seconds in the model spec.", UNKNOWN_ATTEMPTS)
    if why := _node_lost(status):
        raise StepFailedError(f"Pod {name} lost its node ({why})\n  → The next try runs on another node.")
    if ended is None:
        raise _not_started(pod)
    if ended.reason == "OOMKilled":
        problem = f"Pod {name} took more memory than its limit and was killed"
        raise StepFailedError(f"{problem}\n  → Raise resources.…memory in the model spec.", UNKNOWN_ATTEMPTS)
    return ended.exit_code if ended.exit_code <= 128 else 128 - ended.exit_code


def result_without_pod(spec: StepSpec, name: str, uri: str) -> dict[str, Any]:
    """The result of a step whose pod was deleted. Raises StepFailedError unless its report says success.

    The step writes its report last, and each try has its own. So a report of success is proof.
    """
    try:
        return step_result(spec, 0, uri)
    except StepFailedError:
        problem = f"Pod {name} is gone, and Airflow has not seen how it ended: it was deleted, or its node was lost"
        raise StepFailedError(f"{problem}\n  → The next try makes another pod.") from None


def refused(name: str, error: ApiException) -> StepFailedError:
    """The error for a pod that the cluster refused to create. A retry helps unless the manifest breaks a rule."""
    text = f"The cluster refused pod {name}: {error.status} {error.reason}: {error.body}"
    return StepFailedError(text, attempts=1 if error.status in (400, 422) else None)


def quota_is_full(error: ApiException) -> bool:
    """Whether the cluster refused a pod because of a quota. Pods that wait for a node count, too."""
    return error.status == 403 and "exceeded quota" in str(error.body)


def unwatched(name: str, why: object) -> StepFailedError:
    """The error for a pod whose state cannot be read. It may still run, so it is not deleted."""
    problem = f"Pod {name} could not be watched: {why}"
    return StepFailedError(
        f"{problem}\n  → The pod is left running. The next try, or clearing this task, continues it."
    )


def too_late(pod: Any) -> StepFailedError:
    """The error for a pod that did not start or did not end within its time limit."""
    state = _state(pod)
    if state is not None and state.running is not None:
        problem = f"Pod {pod.metadata.name} ran longer than the task's time limit and was ended"
        return StepFailedError(problem, UNKNOWN_ATTEMPTS)
    return _not_started(pod)


def ended_at(pod: Any) -> datetime:
    """When the pod ended; when its status does not say: when it was created."""
    ended = _terminated(pod)
    return (ended.finished_at if ended is not None else None) or pod.metadata.creation_timestamp


def _not_started(pod: Any) -> StepFailedError:
    name, waiting = pod.metadata.name, _waiting(pod)
    if waiting is not None and waiting.reason in _NEVER_STARTS:
        return StepFailedError(f"Pod {name} cannot start: {waiting.reason}: {waiting.message}", attempts=1)
    if waiting is not None and waiting.reason in _NO_IMAGE:
        problem = f"Pod {name} has no image: {waiting.reason}: {waiting.message}"
        return StepFailedError(f"{problem}\n  → Look at CT_IMAGE and CT_POD_IMAGE_PULL_SECRETS.", UNKNOWN_ATTEMPTS)
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            problem = f"Pod {name} got no node: {condition.reason}: {condition.message}"
            return StepFailedError(f"{problem}\n  → Compare the model spec's resources with the cluster's nodes.")
    detail = f": {waiting.reason}" if waiting is not None else ""
    return StepFailedError(f"Pod {name} ended in phase {pod.status.phase} and left no exit code{detail}")


def _node_lost(status: Any) -> str | None:
    for condition in status.conditions or []:
        if condition.type == "DisruptionTarget" and condition.status == "True":
            return f"{condition.reason}: {condition.message}"
    return f"{status.reason}: {status.message}" if status.reason in _LOST_NODE else None


def _state(pod: Any) -> Any:
    statuses = pod.status.container_statuses or []
    return next((status.state for status in statuses if status.name == CONTAINER), None)


def _terminated(pod: Any) -> Any:
    state = _state(pod)
    return state.terminated if state is not None else None


def _waiting(pod: Any) -> Any:
    state = _state(pod)
    return state.waiting if state is not None else None
